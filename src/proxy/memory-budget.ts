import { unusableAnswer } from "./upstream-errors.ts";

/** So much of each request and its answer is not counted: ordinary ones always have room. */
const FREE_BYTES = 64 * 1024;

export interface MemoryBudgetOptions {
  /** Of all bodies that are kept at one time, past what is free. */
  maxBytes: number;
  /** Part of it that one session may take. */
  sessionShare: number;
}

/**
 * Counts what bodies of requests and answers take while they are kept to be read as a whole. Each is
 * bounded by itself, but many at one time would be more than the process has.
 */
export class MemoryBudget {
  readonly #options: MemoryBudgetOptions;
  readonly #bySession = new Map<string, number>();
  #total = 0;

  constructor(options: MemoryBudgetOptions) {
    this.#options = options;
  }

  /** For one exchange of a session. */
  open(session: string): MemoryHold {
    let kept = 0;
    let counted = 0;
    const count = (change: number) => {
      counted += change;
      this.#total += change;
      const left = (this.#bySession.get(session) ?? 0) + change;
      if (left <= 0) this.#bySession.delete(session);
      else this.#bySession.set(session, left);
    };
    return {
      add: (bytes) => {
        kept += bytes;
        const more = Math.max(0, kept - FREE_BYTES) - counted;
        if (more > 0) this.#check(session, more);
        count(more);
      },
      release: () => {
        kept = 0;
        count(-counted);
      },
    };
  }

  #check(session: string, more: number): void {
    const { maxBytes, sessionShare } = this.#options;
    const ofSession = maxBytes * sessionShare;
    if ((this.#bySession.get(session) ?? 0) + more > ofSession) {
      throw full("the session's requests and answers", ofSession);
    }
    if (this.#total + more > maxBytes) throw full("requests and answers", maxBytes);
  }
}

export interface MemoryHold {
  /** Throws UPSTREAM_REFUSED when there is no room. */
  add(bytes: number): void;
  /** Nothing is kept any more; `add` may be called again. */
  release(): void;
}

function full(what: string, limit: number): Error {
  return unusableAnswer(
    `there is no room for more of it: ${what} that are under way may take ${limit} bytes together; ` +
      "ask again later, or for less at one time",
    { limit },
  );
}
