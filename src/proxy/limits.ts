import { AppError } from "../runtime/errors.ts";

/** Security §12, in bytes. */
export const SIZES = {
  /** An MCP request. */
  mcpRequest: 4 * 1024 * 1024,
  /** What the Messages API itself accepts. */
  modelRequest: 32 * 1024 * 1024,
  tokensRequest: 16 * 1024,
  jsonAnswer: 16 * 1024 * 1024,
  sseEvent: 4 * 1024 * 1024,
  sseStream: 64 * 1024 * 1024,
  /** All request headers together. */
  headers: 16 * 1024,
} as const;

export const MAX_HEADERS = 100;
export const MAX_JSON_DEPTH = 64;

export const TIMEOUTS = {
  connectMs: 5000,
  /** Until the first byte of an answer. */
  headersMs: 10_000,
  /** The same for `tools/call`: a server may answer with JSON only once the tool is done. */
  callHeadersMs: 120_000,
  /** The same for the model: a request without streaming answers when it is complete. */
  modelHeadersMs: 600_000,
  /** Silence inside an answer. */
  bodyIdleMs: 120_000,
  /** One request of the harness must have arrived by then. */
  requestMs: 60_000,
  storeMs: 2000,
  issuerMs: 5000,
} as const;

/** At one time, for one session. */
export const SESSION_IN_FLIGHT = 32;

/** Counts running requests; `enter` throws UNAVAILABLE (retryable) past a limit. */
export class InFlight {
  readonly #maxTotal: number;
  readonly #bySession = new Map<string, number>();
  #total = 0;

  constructor(maxTotal: number) {
    this.#maxTotal = maxTotal;
  }

  /** The returned function ends the request; call it exactly once. */
  enter(session: string): () => void {
    const running = this.#bySession.get(session) ?? 0;
    if (running >= SESSION_IN_FLIGHT) throw tooMany("session", SESSION_IN_FLIGHT);
    if (this.#total >= this.#maxTotal) throw tooMany("proxy", this.#maxTotal);
    this.#bySession.set(session, running + 1);
    this.#total += 1;
    return () => {
      this.#total -= 1;
      const left = (this.#bySession.get(session) ?? 1) - 1;
      if (left === 0) this.#bySession.delete(session);
      else this.#bySession.set(session, left);
    };
  }
}

function tooMany(whose: string, limit: number): AppError {
  return new AppError("UNAVAILABLE", `the ${whose} has ${limit} requests in flight already`, {
    retryable: true,
    details: { limit },
  });
}
