import { AppError, type ErrorCode } from "../runtime/errors.ts";

/**
 * What the API server, or the way to it, answered. Ask with the guards below, which read fields and
 * so also know an error made by another copy of this class.
 */
export class KubeError extends AppError {
  /** HTTP status; 0 when no answer arrived. */
  readonly status: number;
  /** `reason` of the API server's Status (`NotFound`, `Conflict`, `Expired` …), or `Unreachable`, `Timeout`. */
  readonly reason: string;
  /** From `Retry-After`, when the server sent one. */
  readonly retryAfterMs: number | undefined;

  constructor(message: string, options: KubeErrorOptions) {
    super(codeFor(options.status, options.reason), message, {
      ...(options.cause === undefined ? {} : { cause: options.cause }),
      details: { status: options.status, reason: options.reason },
      retryable: options.status === 0 || options.status === 429 || options.status >= 500,
    });
    this.name = "KubeError";
    this.status = options.status;
    this.reason = options.reason;
    this.retryAfterMs = options.retryAfterMs;
  }
}

export interface KubeErrorOptions {
  status: number;
  reason: string;
  retryAfterMs?: number | undefined;
  cause?: unknown;
}

export function isKubeError(error: unknown): error is KubeError {
  return (
    typeof error === "object" &&
    error !== null &&
    "name" in error &&
    error.name === "KubeError" &&
    "status" in error &&
    "reason" in error
  );
}

export function isNotFound(error: unknown): boolean {
  return isKubeError(error) && error.status === 404;
}

/** The object changed since it was read, or another field manager owns a field. */
export function isConflict(error: unknown): boolean {
  return isKubeError(error) && error.status === 409 && error.reason !== "AlreadyExists";
}

export function isAlreadyExists(error: unknown): boolean {
  return isKubeError(error) && error.status === 409 && error.reason === "AlreadyExists";
}

/** The resource version or continue token is too old: list again. */
export function isGone(error: unknown): boolean {
  return isKubeError(error) && error.status === 410;
}

export function isTooManyRequests(error: unknown): boolean {
  return isKubeError(error) && error.status === 429;
}

export function isForbidden(error: unknown): boolean {
  return isKubeError(error) && error.status === 403;
}

export function isUnauthorized(error: unknown): boolean {
  return isKubeError(error) && error.status === 401;
}

/** The API server or an admission policy refuses the object's content. */
export function isInvalid(error: unknown): boolean {
  return isKubeError(error) && (error.status === 422 || error.status === 400);
}

/** The namespace is being deleted, so nothing can be created in it any more. */
export function isNamespaceTerminating(error: unknown): boolean {
  return (
    isKubeError(error) && error.status === 403 && error.message.includes("is being terminated")
  );
}

/** The server cannot be reached or does not manage to answer; the same call may succeed later. */
export function isUnavailable(error: unknown): boolean {
  return isKubeError(error) && (error.status === 0 || error.status === 429 || error.status >= 500);
}

/**
 * No answer of the API server itself, or one that says it cannot serve: an outage, of which the client
 * tells in the log. A 500 is not: a webhook that fails makes one too.
 */
export function isUnreachable(error: unknown): boolean {
  return isKubeError(error) && [0, 502, 503, 504].includes(error.status);
}

/** A write may have been carried out although it failed: read before writing again. */
export function isOutcomeUnknown(error: unknown): boolean {
  return isKubeError(error) && (error.status === 0 || error.status >= 500);
}

/** How long the server asks to wait, in ms. */
export function retryAfterOf(error: unknown): number | undefined {
  return isKubeError(error) ? error.retryAfterMs : undefined;
}

/** The value, or undefined when the object does not exist. */
export async function unlessNotFound<T>(work: Promise<T>): Promise<T | undefined> {
  try {
    return await work;
  } catch (error) {
    if (isNotFound(error)) return undefined;
    throw error;
  }
}

function codeFor(status: number, reason: string): ErrorCode {
  if (status === 0) return reason === "Timeout" ? "TIMEOUT" : "UNAVAILABLE";
  if (status === 400 || status === 422) return "INPUT_INVALID";
  if (status === 401) return "UNAUTHENTICATED";
  if (status === 403) return "FORBIDDEN";
  if (status === 404) return "NOT_FOUND";
  if (status === 409 || status === 410) return "CONFLICT";
  if (status === 413) return "INPUT_TOO_LARGE";
  if (status === 504) return "TIMEOUT";
  if (status === 429 || status >= 500) return "UNAVAILABLE";
  return "INTERNAL";
}
