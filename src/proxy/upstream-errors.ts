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
export function checkAnswer(
  what: string,
  answer: { statusCode: number; headers: Record<string, string | string[] | undefined> },
): void {
  if (answer.statusCode >= 300 && answer.statusCode < 400) {
    throw new AppError(
      "UPSTREAM_REFUSED",
      `${what} answered a redirect (${answer.statusCode}), which is not followed`,
    );
  }
  const encoding = oneHeader(answer.headers, "content-encoding");
  if (encoding !== undefined && encoding !== "identity") {
    // It was asked for a plain one; a packed body cannot be searched for credentials.
    throw new AppError("UPSTREAM_REFUSED", `${what} answered with a compressed body`);
  }
}

export function oneHeader(
  headers: Record<string, string | string[] | undefined>,
  name: string,
): string | undefined {
  const value = headers[name];
  return Array.isArray(value) ? value[0] : value;
}
