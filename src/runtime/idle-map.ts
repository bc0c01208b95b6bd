import type { Clock } from "./clock.ts";

/**
 * A map for what must not stay in memory: it lets go of each value that was not used for `idleMs`,
 * and of the one that was used longest ago when there are more than `max`. A value that somebody
 * else still holds is found again under its key, so that there are never two of one.
 */
export class IdleMap<V extends object> {
  readonly #max: number;
  readonly #idleMs: number;
  readonly #clock: Clock;
  /** In the order of their last use. */
  readonly #kept = new Map<string, { value: V; usedAt: number }>();
  readonly #letGo = new Map<string, WeakRef<V>>();
  #isTimed = false;

  constructor({ max, idleMs, clock }: { max: number; idleMs: number; clock: Clock }) {
    this.#max = max;
    this.#idleMs = idleMs;
    this.#clock = clock;
  }

  /** Counts as a use. */
  get(key: string): V | undefined {
    const value = this.#kept.get(key)?.value ?? this.#letGo.get(key)?.deref();
    if (value !== undefined) this.set(key, value);
    return value;
  }

  /** The one that is there, or else one that is made now. */
  getOrMake(key: string, make: () => V): V {
    const known = this.get(key);
    if (known !== undefined) return known;
    const value = make();
    this.set(key, value);
    return value;
  }

  set(key: string, value: V): void {
    this.delete(key);
    this.#kept.set(key, { value, usedAt: this.#clock.monotonic() });
    const [oldest] = this.#kept;
    if (this.#kept.size > this.#max && oldest !== undefined) this.#release(...oldest);
    this.#time();
  }

  delete(key: string): void {
    this.#kept.delete(key);
    this.#letGo.delete(key);
  }

  #time(): void {
    if (this.#isTimed || this.#kept.size + this.#letGo.size === 0) return;
    this.#isTimed = true;
    this.#clock.timer(this.#idleMs / 4, () => {
      this.#isTimed = false;
      this.#sweep();
      this.#time();
    });
  }

  #sweep(): void {
    const now = this.#clock.monotonic();
    for (const [key, reference] of this.#letGo) {
      if (reference.deref() === undefined) this.#letGo.delete(key);
    }
    for (const [key, kept] of this.#kept) {
      if (now - kept.usedAt < this.#idleMs) return;
      this.#release(key, kept);
    }
  }

  #release(key: string, { value }: { value: V }): void {
    this.#kept.delete(key);
    this.#letGo.set(key, new WeakRef(value));
  }
}
