import { backoffMs } from "../runtime/backoff.ts";
import type { Clock } from "../runtime/clock.ts";
import type { Rng } from "../runtime/rng.ts";
import type { Enqueue } from "./controller.ts";
import type { WorkQueueMetrics } from "./metrics.ts";
import { TokenBucket, type TokenBucketOptions } from "./token-bucket.ts";

export interface WorkQueueDeps {
  /** Label of the metrics. */
  name: string;
  clock: Clock;
  rng: Pick<Rng, "next">;
  metrics: WorkQueueMetrics;
  /** Delay of a key's n-th retry. Default 50 ms doubling to 60 s. */
  perKey?: { baseMs: number; maxMs: number };
  /** All retries together. Default 10 a second after a burst of 100, as controller-runtime. */
  overall?: TokenBucketOptions;
}

/**
 * Keys to work on. A key waits at most once, however often it is added; while it is worked on it is
 * not given out again, and an add meanwhile makes it wait once more when `done` is called.
 */
export class WorkQueue implements Enqueue {
  readonly #deps: WorkQueueDeps;
  readonly #labels: { name: string; controller: string };
  readonly #bucket: TokenBucket;
  /** Waiting keys in order, with the time they were added. */
  readonly #waiting = new Map<string, number>();
  /** Keys being worked on, with the time they were taken. */
  readonly #working = new Map<string, number>();
  /** Keys added while they were worked on. */
  readonly #again = new Map<string, number>();
  readonly #timers = new Map<string, { atMs: number; cancel: () => void }>();
  readonly #failures = new Map<string, number>();
  readonly #takers: ((key: string | undefined) => void)[] = [];
  readonly #unobserve: () => void;
  #closed = false;

  constructor(deps: WorkQueueDeps) {
    this.#deps = deps;
    this.#labels = { name: deps.name, controller: deps.name };
    this.#bucket = new TokenBucket(deps.clock, deps.overall ?? { perSecond: 10, burst: 100 });
    const { metrics } = deps;
    for (const metric of [metrics.adds, metrics.retries]) metric.inc(this.#labels, 0);
    for (const metric of [metrics.queueSeconds, metrics.workSeconds]) metric.zero(this.#labels);
    metrics.depth.set(this.#labels, 0);
    this.#unobserve = metrics.observe({
      name: deps.name,
      unfinishedSeconds: () =>
        [...this.#working.values()].map((since) => (deps.clock.monotonic() - since) / 1000),
    });
  }

  /** Keys that wait for a worker, without those that wait for a time. */
  get length(): number {
    return this.#waiting.size;
  }

  add(key: string): void {
    if (this.#closed || this.#waiting.has(key) || this.#again.has(key)) return;
    const { clock, metrics } = this.#deps;
    metrics.adds.inc(this.#labels);
    if (this.#working.has(key)) {
      this.#again.set(key, clock.monotonic());
      return;
    }
    this.#waiting.set(key, clock.monotonic());
    this.#handOut();
  }

  /** Adds the key after a time; of several times, the earliest holds. */
  addAfter(key: string, delayMs: number): void {
    if (this.#closed) return;
    if (delayMs <= 0) {
      this.add(key);
      return;
    }
    const atMs = this.#deps.clock.monotonic() + delayMs;
    const planned = this.#timers.get(key);
    if (planned !== undefined && planned.atMs <= atMs) return;
    planned?.cancel();
    const cancel = this.#deps.clock.timer(delayMs, () => {
      this.#timers.delete(key);
      this.add(key);
    });
    this.#timers.set(key, { atMs, cancel });
  }

  /** Adds the key after its back-off and when the overall bucket allows. */
  addRateLimited(key: string): void {
    const attempt = (this.#failures.get(key) ?? 0) + 1;
    this.#failures.set(key, attempt);
    const own = backoffMs(
      attempt,
      this.#deps.perKey ?? { baseMs: 50, maxMs: 60_000 },
      this.#deps.rng,
    );
    this.#deps.metrics.retries.inc(this.#labels);
    this.addAfter(key, Math.max(own, this.#bucket.reserve()));
  }

  /** How often the key was added by `addRateLimited` since it was last forgotten. */
  failures(key: string): number {
    return this.#failures.get(key) ?? 0;
  }

  /** The key's next failure counts as its first. */
  forget(key: string): void {
    this.#failures.delete(key);
  }

  /** The next key, once there is one; undefined when the queue is closed. Call `done` after the work. */
  take(): Promise<string | undefined> {
    return new Promise((resolve) => {
      if (this.#closed) {
        resolve(undefined);
        return;
      }
      this.#takers.push(resolve);
      this.#handOut();
    });
  }

  done(key: string): void {
    const { clock, metrics } = this.#deps;
    const since = this.#working.get(key);
    if (since === undefined) return;
    this.#working.delete(key);
    metrics.workSeconds.observe(this.#labels, (clock.monotonic() - since) / 1000);
    const added = this.#again.get(key);
    if (added === undefined) return;
    this.#again.delete(key);
    this.#waiting.set(key, added);
    this.#handOut();
  }

  /** Gives out nothing more; what waits is dropped. */
  close(): void {
    this.#closed = true;
    for (const { cancel } of this.#timers.values()) cancel();
    this.#timers.clear();
    this.#waiting.clear();
    this.#again.clear();
    this.#deps.metrics.depth.set(this.#labels, 0);
    this.#unobserve();
    for (const resolve of this.#takers.splice(0)) resolve(undefined);
  }

  #handOut(): void {
    const { clock, metrics } = this.#deps;
    while (!this.#closed && this.#waiting.size > 0 && this.#takers.length > 0) {
      const [key, added] = first(this.#waiting);
      this.#waiting.delete(key);
      this.#working.set(key, clock.monotonic());
      metrics.queueSeconds.observe(this.#labels, (clock.monotonic() - added) / 1000);
      this.#takers.shift()?.(key);
    }
    metrics.depth.set(this.#labels, this.#waiting.size);
  }
}

function first(map: Map<string, number>): [string, number] {
  for (const entry of map) return entry;
  throw new RangeError("the map is empty");
}
