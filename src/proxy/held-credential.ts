import type { Credential } from "../credentials/credential-source.ts";
import type { Clock } from "../runtime/clock.ts";
import { AppError } from "../runtime/errors.ts";
import type { KnownSecret } from "./redaction.ts";

/** Longest a rotated or revoked value may still be used (security §1). */
const CACHE_MS = 5000;
/** Longest a value is used after it was last read, while its place does not answer (security §6). */
const HELD_MS = 60_000;
/** During an outage uses go on at once with what is held, and one of them a second asks again. */
const RETRY_MS = 1000;
/**
 * Values that are looked for in answers, the newest first. Not by time: a stream that began with one
 * of them may last for hours. All of them go with this object.
 */
const MAX_GENERATIONS = 16;

interface Held extends Credential {
  readAt: number;
}

export interface HeldCredentialOptions {
  clock: Clock;
  /** What to look for in answers because of a value: itself, and what it is made of. */
  secretsOf: (value: string) => readonly KnownSecret[];
}

/** One credential in memory: read when it is used, held for seconds, dropped when it is refused. */
export class HeldCredential {
  readonly #options: HeldCredentialOptions;
  #held: Held | undefined;
  /** Also those that were refused since: a server that was sent one may still give it back. */
  #generations: readonly string[] = [];
  #known: readonly KnownSecret[] = [];
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

  /**
   * What to look for in answers: the value and those before it. The same list until one is added, so
   * that it is made ready for the search only once.
   */
  get known(): readonly KnownSecret[] {
    return this.#known;
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
      this.#remember(value.reveal());
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

  #remember(value: string): void {
    if (this.#generations[0] === value) return;
    const before = this.#generations.filter((other) => other !== value);
    this.#generations = [value, ...before].slice(0, MAX_GENERATIONS);
    this.#known = this.#generations.flatMap((one) => this.#options.secretsOf(one));
  }

  #age({ readAt }: Held): number {
    return this.#options.clock.monotonic() - readAt;
  }
}
