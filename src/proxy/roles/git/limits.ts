/** Of one request at the edge, in bytes. */
export const GIT_SIZES = {
  /** A push: commands and pack. */
  push: 1024 * 1024 * 1024,
  /** What a fetch asks for: wants and haves. */
  fetchRequest: 32 * 1024 * 1024,
  /** An advertisement of refs. */
  refs: 64 * 1024 * 1024,
  /** A pack that is fetched. */
  fetchAnswer: 8 * 1024 * 1024 * 1024,
  /** A report, with what the host's hooks say. */
  pushAnswer: 16 * 1024 * 1024,
  /** An error of the host in words. */
  errorText: 64 * 1024,
} as const;
export type GitSizes = { readonly [K in keyof typeof GIT_SIZES]: number };

export const GIT_TIMEOUTS = {
  /** Until a git host answers; it may have to count objects or run hooks first. */
  headersMs: 120_000,
  /** Silence of git in the sandbox while it sends: it may be packing. */
  sendIdleMs: 60_000,
  /** Until the commands of a push are there; git writes them before it packs. */
  commandsMs: 60_000,
  /** After a refusal: for the rest of the request, and for git to take the reason. */
  restMs: 30_000,
  /** From a request's arrival to the end of its answer; a refusal then has `restMs` more. */
  transferMs: 3_600_000,
} as const;
