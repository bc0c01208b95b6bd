import type { Clock } from "../../src/runtime/clock.ts";

interface Timer {
  at: number;
  order: number;
  fire: () => void;
}

/** A Clock that stands still until told to advance; timers fire in time order, then in the order they were set. */
export class FakeClock implements Clock {
  #now: number;
  #monotonic = 0;
  #order = 0;
  readonly #timers = new Set<Timer>();

  constructor(startMs = 1_700_000_000_000) {
    this.#now = startMs;
  }

  now(): number {
    return this.#now;
  }

  monotonic(): number {
    return this.#monotonic;
  }

  /** Timers and sleeps that wait. */
  get pending(): number {
    return this.#timers.size;
  }

  timer(ms: number, f: () => void): () => void {
    this.#order += 1;
    const timer = { at: this.#monotonic + Math.max(0, ms), order: this.#order, fire: f };
    this.#timers.add(timer);
    return () => this.#timers.delete(timer);
  }

  sleep(ms: number, signal?: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      if (signal?.aborted === true) {
        reject(signal.reason);
        return;
      }
      const onAbort = () => {
        cancel();
        reject(signal?.reason);
      };
      const cancel = this.timer(ms, () => {
        signal?.removeEventListener("abort", onAbort);
        resolve();
      });
      signal?.addEventListener("abort", onAbort, { once: true });
    });
  }

  /** Moves time on by `ms`, firing what falls due on the way; promises settle before, between and after. */
  async advance(ms: number): Promise<void> {
    await this.settle();
    const end = this.#monotonic + ms;
    for (let next = this.#next(end); next !== undefined; next = this.#next(end)) {
      this.#moveTo(next.at);
      this.#timers.delete(next);
      next.fire();
      await this.settle();
    }
    this.#moveTo(end);
    await this.settle();
  }

  /** Lets promise chains that wait for no timer run to their end. */
  async settle(): Promise<void> {
    for (let turn = 0; turn < 5; turn += 1) {
      await new Promise<void>((resolve) => setImmediate(resolve));
    }
  }

  /** Changes the wall clock only, as an administrator or NTP does. */
  jump(ms: number): void {
    this.#now += ms;
  }

  #next(end: number): Timer | undefined {
    let first: Timer | undefined;
    for (const timer of this.#timers) {
      if (timer.at > end) continue;
      if (first === undefined || timer.at < first.at) first = timer;
      else if (timer.at === first.at && timer.order < first.order) first = timer;
    }
    return first;
  }

  #moveTo(monotonic: number): void {
    this.#now += Math.max(0, monotonic - this.#monotonic);
    this.#monotonic = Math.max(this.#monotonic, monotonic);
  }
}
