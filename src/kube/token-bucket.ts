import type { Clock } from "../runtime/clock.ts";

export interface TokenBucketOptions {
  /** Tokens added each second. */
  perSecond: number;
  /** Most tokens that can be saved up. */
  burst: number;
}

/** Counts by monotonic time; a bucket starts full. */
export class TokenBucket {
  readonly #clock: Pick<Clock, "monotonic">;
  readonly #options: TokenBucketOptions;
  #tokens: number;
  #atMs: number;

  constructor(clock: Pick<Clock, "monotonic">, options: TokenBucketOptions) {
    this.#clock = clock;
    this.#options = options;
    this.#tokens = options.burst;
    this.#atMs = clock.monotonic();
  }

  /** Takes a token if there is one. */
  take(): boolean {
    this.#refill();
    if (this.#tokens < 1) return false;
    this.#tokens -= 1;
    return true;
  }

  /** Takes a token now or from the future; answers how long to wait for it, in ms. */
  reserve(): number {
    this.#refill();
    this.#tokens -= 1;
    return this.#tokens >= 0 ? 0 : Math.ceil((-this.#tokens / this.#options.perSecond) * 1000);
  }

  #refill(): void {
    const now = this.#clock.monotonic();
    const added = ((now - this.#atMs) / 1000) * this.#options.perSecond;
    this.#tokens = Math.min(this.#options.burst, this.#tokens + added);
    this.#atMs = now;
  }
}
