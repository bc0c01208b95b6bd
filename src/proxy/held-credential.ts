import type { Credential } from "../credentials/credential-source.ts";
import type { Clock } from "../runtime/clock.ts";
import { AppError } from "../runtime/errors.ts";
import type { KnownValues } from "./known-values.ts";

/**
 * Longest a rotated or revoked value may still be used (docs/design/security.md#what-is-promised).
 */
const CACHE_MS = 5000;
/**
 * Longest a value is used after it was last read, while its place does not answer
 * (docs/design/security.md#vault).
 */
const HELD_MS = 60_000;
/** During an outage uses go on at once with what is held, and one of them a second asks again. */
const RETRY_MS = 1000;

interface Held extends Credential {
  readAt: number;
}

export interface HeldCredentialOptions {
  clock: Clock;
  /** Is told of each value before it is used. */
  values: Pick<KnownValues, "add">;
}

/** One credential in memory: read when it is used, held for seconds, dropped when it is refused. */
export class HeldCredential {
  readonly #options: HeldCredentialOptions;
  #held: Held | undefined;
  /** When the last read found an outage; undefined after any other. */
  #failedAt: number | undefined;
  #reading: Promise<Held> | undefined;

  constructor(options: HeldCredentialOptions) {
    this.#options = options;
  }

  /**
   * The value, by `read` when what is held is older than 5 s. A read that fails with a retryable
   * error is an outage: the held value serves on until 60 s after it was read, also while the place
   * is being asked again. Rejects with what `read` rejected with.
   */
  async get(read: () => Promise<Credential>): Promise<Credential> {
    const held = this.#held;
    if (held !== undefined && this.#age(held) <= this.#usableMs()) return held;
    this.#reading ??= this.#readNow(read).finally(() => {
      this.#reading = undefined;
    });
    return await this.#reading;
  }

  #usableMs(): number {
    if (this.#failedAt === undefined) return CACHE_MS;
    const justFailed = this.#options.clock.monotonic() - this.#failedAt <= RETRY_MS;
    return justFailed || this.#reading !== undefined ? HELD_MS : CACHE_MS;
  }

  async #readNow(read: () => Promise<Credential>): Promise<Held> {
    // What was changed while the place took its time to answer may not be in the answer.
    const readAt = this.#options.clock.monotonic();
    try {
      const { value, version } = await read();
      this.#failedAt = undefined;
      this.#options.values.add(value.reveal());
      this.#held = { value, version, readAt };
      return this.#held;
    } catch (error) {
      // A place that does not answer says nothing about the value; one that refuses it does.
      const isOutage = error instanceof AppError && error.retryable;
      if (isOutage && this.#held !== undefined && this.#age(this.#held) <= HELD_MS) {
        this.#failedAt = this.#options.clock.monotonic();
        return this.#held;
      }
      this.#failedAt = undefined;
      this.#held = undefined;
      throw error;
    }
  }

  #age({ readAt }: Held): number {
    return this.#options.clock.monotonic() - readAt;
  }
}
