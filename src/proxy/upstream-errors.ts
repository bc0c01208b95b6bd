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
  const encoding = oneHeader(headers, "content-encoding");
  if (encoding === undefined || encoding === "identity") return;
  discardBody(answer);
  // A plain body was asked for; a packed one cannot be searched for credentials.
  throw unusableAnswer(`${what} answered with a compressed body, which was not asked for`);
}

/** Gives an answer's connection up. Its stream reports that as an error, which is no news here. */
export function discardBody({ body }: Dispatcher.ResponseData): void {
  body.on("error", () => {});
  body.destroy();
}

export function oneHeader(
  headers: Record<string, string | string[] | undefined>,
  name: string,
): string | undefined {
  const value = headers[name];
  return Array.isArray(value) ? value[0] : value;
}
