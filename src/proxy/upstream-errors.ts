import type { Dispatcher } from "undici";
import { AppError, codeOf, isAbort } from "../runtime/errors.ts";

const LATE = new Set([
  "UND_ERR_CONNECT_TIMEOUT",
  "UND_ERR_HEADERS_TIMEOUT",
  "UND_ERR_BODY_TIMEOUT",
]);

/** Our own errors and aborts as they are; what the HTTP client throws without its text. */
export function upstreamError(what: string, error: unknown): unknown {
  if (error instanceof AppError || isAbort(error)) return error;
  const code = codeOf(error) ?? "unknown error";
  return LATE.has(code)
    ? new AppError("TIMEOUT", `${what} is too slow (${code})`, { cause: error, retryable: true })
    : new AppError("UNAVAILABLE", `${what} cannot be reached (${code})`, {
        cause: error,
        retryable: true,
      });
}

/** Throws UPSTREAM_REFUSED for a redirect (a credential never follows one) or a packed body. */
export function checkAnswer(what: string, answer: Dispatcher.ResponseData): void {
  const problem = problemOf(answer);
  if (problem === undefined) return;
  discardBody(answer);
  throw new AppError("UPSTREAM_REFUSED", `${what} answered ${problem}`);
}

function problemOf({ statusCode, headers }: Dispatcher.ResponseData): string | undefined {
  if (statusCode >= 300 && statusCode < 400) {
    return `a redirect (${statusCode}), which is not followed`;
  }
  const encoding = oneHeader(headers, "content-encoding");
  // A plain body was asked for; a packed one cannot be searched for credentials.
  return encoding === undefined || encoding === "identity"
    ? undefined
    : "with a compressed body, which was not asked for";
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
