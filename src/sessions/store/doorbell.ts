import type { Clock } from "../../runtime/clock.ts";

/** A hint for whoever waits; rung while nobody waits, it lets the next one through at once. */
export class Doorbell {
  readonly #clock: Pick<Clock, "timer">;
  readonly #waiting = new Set<() => void>();
  #rung = false;

  constructor(clock: Pick<Clock, "timer">) {
    this.#clock = clock;
  }

  /** Wakes everybody who waits. */
  ring(): void {
    this.#rung = this.#waiting.size === 0;
    for (const wake of this.#waiting) wake();
  }

  /** Resolves at a ring, after `ms`, or when the signal aborts; never rejects. */
  wait(ms: number, signal?: AbortSignal): Promise<void> {
    if (this.#rung || signal?.aborted === true) {
      this.#rung = false;
      return Promise.resolve();
    }
    return new Promise((resolve) => {
      const done = () => {
        cancel();
        signal?.removeEventListener("abort", done);
        this.#waiting.delete(done);
        resolve();
      };
      const cancel = this.#clock.timer(ms, done);
      signal?.addEventListener("abort", done, { once: true });
      this.#waiting.add(done);
    });
  }
}
