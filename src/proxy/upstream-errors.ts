import type { Dispatcher } from "undici";
import { AppError, codeOf, isAbort } from "../runtime/errors.ts";

const LATE = new Set([
  "UND_ERR_CONNECT_TIMEOUT",
  "UND_ERR_HEADERS_TIMEOUT",
  "UND_ERR_BODY_TIMEOUT",
]);

/** Failures from before a connection stood: nothing can have been done on the other side. */
const NOT_SENT =
  /^(ECONNREFUSED|ENOTFOUND|EAI_AGAIN|EHOSTUNREACH|ENETUNREACH|UND_ERR_CONNECT_TIMEOUT|CERT_.*|ERR_TLS_CERT_.*|.*SELF_SIGNED_CERT.*|UNABLE_TO_.*)$/;

/**
 * Our own errors and aborts as they are; what the HTTP client throws, without its text. The detail
 * `outcome: "unknown"` says that the other side may have acted on the request all the same.
 */
export function upstreamError(what: string, error: unknown): Error {
  if (error instanceof AppError || (Error.isError(error) && isAbort(error))) return error;
  const code = codeOf(error) ?? "unknown error";
  const options = {
    cause: error,
    retryable: true,
    details: NOT_SENT.test(code) ? {} : { outcome: "unknown" },
  };
  return LATE.has(code)
    ? new AppError("TIMEOUT", `${what} is too slow (${code})`, options)
    : new AppError("UNAVAILABLE", `${what} cannot be reached (${code})`, options);
}

/** True when the request may have had its effect although we have no usable answer. */
export function isOutcomeUnknown(error: AppError): boolean {
  return error.details["outcome"] === "unknown";
}

/** An answer came, so the request was acted on, but it is nothing that can be passed on. */
export function unusableAnswer(message: string, details: Record<string, unknown> = {}): AppError {
  return new AppError("UPSTREAM_REFUSED", message, { details: { ...details, outcome: "unknown" } });
}

/** Throws UPSTREAM_REFUSED for a redirect (a credential never follows one) or a packed body. */
export function checkAnswer(what: string, answer: Dispatcher.ResponseData): void {
  const { statusCode, headers } = answer;
  if (statusCode >= 300 && statusCode < 400) {
    discardBody(answer);
    throw new AppError(
      "UPSTREAM_REFUSED",
      `${what} answered a redirect (${statusCode}), which is not followed`,
    );
  }
  const packed = packedProblem(headers);
  if (packed === undefined) return;
  discardBody(answer);
  throw unusableAnswer(`${what} answered with ${packed}`);
}

/** What is wrong with how a body is packed: a plain one was asked for, and only that can be searched. */
function packedProblem(headers: Headers): string | undefined {
  const encodings = headerValues(headers, "content-encoding");
  if (encodings.length > 1) return "its content-encoding given twice";
  const [encoding = "identity"] = encodings;
  return encoding.trim().toLowerCase() === "identity"
    ? undefined
    : "a compressed body, which was not asked for";
}

/** Throws UPSTREAM_REFUSED unless the body is said, or may be taken, to be UTF-8. */
export function checkCharset(
  what: string,
  { headers }: Pick<Dispatcher.ResponseData, "headers">,
): void {
  const types = headerValues(headers, "content-type");
  if (types.length > 1) throw unusableAnswer(`${what} answered with its content-type given twice`);
  const charsets = [...(types[0] ?? "").matchAll(/;[ \t]*charset[ \t]*=[ \t]*"?([^";, \t]*)/gi)];
  // ASCII is a part of UTF-8.
  if (charsets.every(([, name = ""]) => /^(?:utf-?8|us-ascii)$/i.test(name))) return;
  throw unusableAnswer(`${what} answered in a charset that is not read; only UTF-8 is`);
}

/** Text of an answer whose bytes come in pieces. Throws UPSTREAM_REFUSED for bytes that are no UTF-8. */
export class Utf8Text {
  readonly #what: string;
  readonly #decoder = new TextDecoder("utf-8", { fatal: true });

  constructor(what: string) {
    this.#what = what;
  }

  push(chunk: Uint8Array): string {
    return this.#decode(chunk);
  }

  /** Throws when the last character is not complete. */
  end(): string {
    return this.#decode(undefined);
  }

  #decode(chunk: Uint8Array | undefined): string {
    let text: string;
    try {
      text = this.#decoder.decode(chunk, { stream: chunk !== undefined });
    } catch {
      throw unusableAnswer(`${this.#what} answered with bytes that are not UTF-8 text`);
    }
    // UTF-16 of ordinary text is valid UTF-8 with these in it.
    if (!text.includes("\0")) return text;
    throw unusableAnswer(`${this.#what} answered with bytes that are not text`);
  }
}

/** Gives an answer's connection up. Its stream reports that as an error, which is no news here. */
export function discardBody({ body }: Dispatcher.ResponseData): void {
  body.on("error", () => {});
  body.destroy();
}

export function oneHeader(headers: Headers, name: string): string | undefined {
  return headerValues(headers, name)[0];
}

function headerValues(headers: Headers, name: string): readonly string[] {
  const value = headers[name];
  return value === undefined ? [] : [value].flat();
}

type Headers = Dispatcher.ResponseData["headers"];
