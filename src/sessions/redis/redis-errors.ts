import { AppError, codeOf, describeError } from "../../runtime/errors.ts";

/** How a failed command is to be taken. */
export type Trouble =
  /** It was not executed; later it may be. */
  | "refused"
  /** It may have been executed. */
  | "uncertain"
  /** Sending it again cannot help. */
  | "fatal";

/** Replies that mean the server has not run the command and may run it later. */
const REFUSALS =
  /^(LOADING|READONLY|MASTERDOWN|CLUSTERDOWN|NOREPLICAS|OOM|BUSY|TRYAGAIN|MISCONF|NOAUTH|WRONGPASS)\b/;
const NOT_SENT = /Stream isn't writeable|Connection is closed/;
const CONNECT_CODES: ReadonlySet<string> = new Set(["ECONNREFUSED", "ENOTFOUND", "EAI_AGAIN"]);

export function troubleOf(error: unknown): Trouble {
  const message = describeError(error);
  if (REFUSALS.test(message)) return "refused";
  if (NOT_SENT.test(message) || CONNECT_CODES.has(codeOf(error) ?? "")) return "refused";
  return isServerReply(error) ? "fatal" : "uncertain";
}

export function isServerReply(error: unknown): boolean {
  return (
    typeof error === "object" && error !== null && "name" in error && error.name === "ReplyError"
  );
}

export function isAuthError(error: unknown): boolean {
  return /\b(WRONGPASS|NOAUTH|NOPERM)\b|invalid (username|password)/i.test(describeError(error));
}

/** Codes of OpenSSL for a certificate whose authority is not known. */
const UNKNOWN_AUTHORITY: ReadonlySet<string> = new Set([
  "DEPTH_ZERO_SELF_SIGNED_CERT",
  "SELF_SIGNED_CERT_IN_CHAIN",
  "UNABLE_TO_GET_ISSUER_CERT",
  "UNABLE_TO_GET_ISSUER_CERT_LOCALLY",
  "UNABLE_TO_VERIFY_LEAF_SIGNATURE",
]);

export function isUntrusted(error: unknown): boolean {
  return UNKNOWN_AUTHORITY.has(codeOf(error) ?? "");
}

/** As `describeError`, without the words of the Redis library, which say nothing to people. */
export function describeTrouble(error: unknown): string {
  return NOT_SENT.test(describeError(error)) ? "not connected to Redis" : describeError(error);
}

/** A cause that may be shown. */
function shown(cause: unknown): unknown {
  return NOT_SENT.test(describeError(cause)) ? undefined : cause;
}

/** Nothing was written; the same call may succeed later. */
export function unavailable(what: string, cause: unknown): AppError {
  return new AppError("UNAVAILABLE", `${what} failed because Redis does not answer; try again`, {
    cause: shown(cause),
    retryable: true,
  });
}

export function outcomeUnknown(what: string, cause: unknown): AppError {
  return new AppError(
    "OUTCOME_UNKNOWN",
    `${what} was sent to Redis, but no answer came; repeat it with the same idempotency key`,
    { cause: shown(cause), retryable: true },
  );
}
