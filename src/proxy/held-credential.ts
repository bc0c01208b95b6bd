import type { Credential } from "../credentials/credential-source.ts";
import type { Clock } from "../runtime/clock.ts";
import { AppError } from "../runtime/errors.ts";
import type { Secret } from "../runtime/secret.ts";
import type { KnownSecret } from "./redaction.ts";

/** Longest a rotated or revoked value may still be used (security §1). */
const CACHE_MS = 5000;
/** Longest a value is used after it was last read, while its place does not answer (security §6). */
const HELD_MS = 60_000;
/** During an outage uses go on at once with what is held, and one of them a second asks again. */
const RETRY_MS = 1000;
/** A replaced value is still looked for in answers this long: a stream may have begun with it. */
const PREVIOUS_MS = 600_000;

interface Held extends Credential {
  readAt: number;
  previous: { value: Secret; until: number } | undefined;
}

/** One credential in memory: read when it is used, held for seconds, dropped when it is refused. */
export class HeldCredential {
  readonly #clock: Clock;
  #held: Held | undefined;
  #known: readonly KnownSecret[] = [];
  #failedAt = Number.NEGATIVE_INFINITY;
  #reading: Promise<Held> | undefined;

  constructor({ clock }: { clock: Clock }) {
    this.#clock = clock;
  }

  /**
   * The value, by `read` when what is held is older than 5 s. A read that fails with a retryable
   * error is an outage: the held value serves on until 60 s after it was read. Rejects with what
   * `read` rejected with.
   */
  async get(read: () => Promise<Credential>): Promise<Credential> {
    const held = this.#held;
    if (held !== undefined) {
      const justFailed = this.#clock.monotonic() - this.#failedAt <= RETRY_MS;
      if (this.#age(held) <= (justFailed ? HELD_MS : CACHE_MS)) return held;
    }
    this.#reading ??= this.#readNow(read).finally(() => {
      this.#reading = undefined;
    });
    return await this.#reading;
  }

  /**
   * What to look for in answers: the value and, for ten minutes, the one before it. The same list
   * until one of them changes, so that it is made ready for the search only once.
   */
  known(id: string): readonly KnownSecret[] {
    if (this.#held === undefined) return [];
    const { value, previous } = this.#held;
    const isRecent = previous !== undefined && this.#clock.monotonic() < previous.until;
    const values = isRecent ? [value, previous.value] : [value];
    const wanted = values.map((secret) => ({ id, value: secret.reveal() }));
    const isSame =
      wanted.length === this.#known.length &&
      wanted.every(
        (one, i) => one.id === this.#known[i]?.id && one.value === this.#known[i]?.value,
      );
    if (!isSame) this.#known = wanted;
    return this.#known;
  }

  async #readNow(read: () => Promise<Credential>): Promise<Held> {
    try {
      const { value, version } = await read();
      const now = this.#clock.monotonic();
      const old = this.#held;
      const changed = old !== undefined && old.value.reveal() !== value.reveal();
      const previous = changed ? { value: old.value, until: now + PREVIOUS_MS } : old?.previous;
      this.#failedAt = Number.NEGATIVE_INFINITY;
      this.#held = { value, version, readAt: now, previous };
      return this.#held;
    } catch (error) {
      // A place that does not answer says nothing about the value; one that refuses it does.
      const isOutage = error instanceof AppError && error.retryable;
      if (isOutage && this.#held !== undefined && this.#age(this.#held) <= HELD_MS) {
        this.#failedAt = this.#clock.monotonic();
        return this.#held;
      }
      this.#held = undefined;
      throw error;
    }
  }

  #age({ readAt }: Held): number {
    return this.#clock.monotonic() - readAt;
  }
}
