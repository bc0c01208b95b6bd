import type { Clock } from "../runtime/clock.ts";

/** So many repetitions come at once: an answer that was lost, a daemon that has just started again. */
const FREE = 2;
const FIRST_MS = 250;
const MAX_MS = 10_000;

/**
 * The pace of a loop that asks somebody else until he has an answer. One who lets us wait as he was
 * asked to is asked again at once; one who says "not yet" at once, again and again, is asked less and
 * less often.
 */
export class Pace {
  readonly #clock: Clock;
  #turns = 0;
  #lastMs = 0;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Waits until the next turn may begin; rejects with the signal's reason when that aborts first. */
  async next(signal: AbortSignal | undefined): Promise<void> {
    const repetitions = this.#turns;
    this.#turns += 1;
    if (repetitions > FREE) {
      const interval = Math.min(MAX_MS, FIRST_MS * 2 ** (repetitions - FREE - 1));
      const rest = this.#lastMs + interval - this.#clock.monotonic();
      if (rest > 0) await this.#clock.sleep(rest, signal);
    }
    this.#lastMs = this.#clock.monotonic();
  }
}
