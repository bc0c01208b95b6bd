/**
 * Errors for people who run Drover: a stable code, what failed, on which object, why, what to do.
 * What the *model* is told about a failed tool is not an error but a tool result; the two never mix.
 */

/** Every code that leaves a process. `http` is the status a server answers with; the table is documented. */
export const ERROR_CODES = {
  CONFIG_INVALID: { http: 500, meaning: "The process was started with settings it cannot use." },
  INPUT_INVALID: { http: 400, meaning: "A request or manifest has a field that is not accepted." },
  INPUT_TOO_LARGE: { http: 413, meaning: "A request is larger than its documented limit." },
  UNAUTHENTICATED: { http: 401, meaning: "No valid token was presented." },
  FORBIDDEN: { http: 403, meaning: "The token is valid but does not allow this." },
  NOT_FOUND: { http: 404, meaning: "The named object does not exist." },
  CONFLICT: { http: 409, meaning: "The object has changed or the identifier is taken." },
  UNAVAILABLE: { http: 503, meaning: "Something this needs cannot be reached; it is retried." },
  TIMEOUT: { http: 504, meaning: "An operation did not end before its deadline." },
  INTERNAL: { http: 500, meaning: "A bug in Drover or an impossible state." },
  SESSION_NOT_FOUND: { http: 404, meaning: "There is no log for this session id." },
  SESSION_CLOSED: { http: 409, meaning: "The session is terminated and takes no more events." },
  SESSION_QUARANTINED: {
    http: 409,
    meaning: "The session is set aside because its workers kept dying; it takes no messages.",
  },
  SESSION_LEASE_LOST: { http: 409, meaning: "Another worker holds the session now." },
  SESSION_REWOUND: { http: 409, meaning: "The log no longer contains what this worker had read." },
  SESSION_EVENT_TOO_LARGE: { http: 413, meaning: "An event or batch exceeds the log's limits." },
  REDIS_UNREACHABLE: { http: 503, meaning: "Redis does not answer." },
  REDIS_AUTH_FAILED: { http: 503, meaning: "Redis refused the user or password." },
  REDIS_EVICTS: { http: 503, meaning: "Redis may evict keys: maxmemory-policy is not noeviction." },
  REDIS_DURABILITY_NOT_KEPT: {
    http: 503,
    meaning: "Redis is not set up for the durability this pool declares.",
  },
  REDIS_UNSUPPORTED: { http: 503, meaning: "Redis is too old or lacks a command Drover needs." },
  LOG_DIRECTORY_IN_USE: { http: 409, meaning: "Another process uses this data directory." },
  LOG_DAMAGED: {
    http: 500,
    meaning: "The file with a session's log is damaged; it is left as it is.",
  },
  OUTCOME_UNKNOWN: { http: 409, meaning: "A call started, and nobody can say how it ended." },
  SANDBOX_STALE_EPOCH: { http: 409, meaning: "The caller's lease epoch has been superseded." },
  SANDBOX_BOUND: { http: 403, meaning: "The sandbox belongs to another session." },
  SANDBOX_INPUT_CHANGED: { http: 409, meaning: "A tool_use_id was repeated with other input." },
  CREDENTIAL_UNAVAILABLE: { http: 503, meaning: "A credential cannot be read at the moment." },
  CREDENTIAL_NOT_FOUND: {
    http: 404,
    meaning:
      "The server wants a credential and none is bound to it, or the place of the bound one is empty.",
  },
  FOREIGN_CREDENTIAL: {
    http: 403,
    meaning: "A request brought a credential of its own; the proxy alone adds them.",
  },
  LIMIT_EXCEEDED: { http: 429, meaning: "A session makes more requests than it may." },
  UPSTREAM_REFUSED: { http: 502, meaning: "The proxied server answered something not allowed on." },
  ADDRESS_REFUSED: { http: 403, meaning: "The target address is not one the proxy may dial." },
  SCRIPT_MISMATCH: { http: 400, meaning: "A request does not match the scripted model's script." },
} as const satisfies Record<string, { http: number; meaning: string }>;

export type ErrorCode = keyof typeof ERROR_CODES;

export interface AppErrorOptions {
  cause?: unknown;
  /** Plain data for logs; never a secret. */
  details?: Record<string, unknown>;
  /** True when the same call may succeed later without anybody's help. */
  retryable?: boolean;
}

export class AppError extends Error {
  readonly code: ErrorCode;
  readonly details: Record<string, unknown>;
  readonly retryable: boolean;

  constructor(code: ErrorCode, message: string, options: AppErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = "AppError";
    this.code = code;
    this.details = options.details ?? {};
    this.retryable = options.retryable ?? false;
  }
}

/** True for an error of ours with this code, also when it comes from another copy of the class. */
export function hasCode(error: unknown, code: ErrorCode): error is AppError {
  return codeOf(error) === code;
}

/** The `code` of any error object (ours, Node's `ENOENT`, ioredis'), or undefined. */
export function codeOf(error: unknown): string | undefined {
  if (typeof error !== "object" || error === null || !("code" in error)) return undefined;
  return typeof error.code === "string" ? error.code : undefined;
}

export function isAbort(error: unknown): boolean {
  if (typeof error !== "object" || error === null || !("name" in error)) return false;
  return error.name === "AbortError";
}

/** One line for people: the message and, where it adds something, the causes below it. */
export function describeError(error: unknown): string {
  const parts: string[] = [];
  let current: unknown = error;
  while (current !== undefined && current !== null && parts.length < 4) {
    const text = messageOf(current);
    if (text !== "" && !parts.some((part) => part.includes(text))) parts.push(text);
    current = typeof current === "object" && "cause" in current ? current.cause : undefined;
  }
  return parts.join(": ") || "unknown error";
}

function messageOf(error: unknown): string {
  if (typeof error === "string") return error;
  if (typeof error !== "object" || error === null) return String(error);
  const message = "message" in error && typeof error.message === "string" ? error.message : "";
  return message || codeOf(error) || "";
}
