import { type BackoffOptions, backoffMs } from "../../runtime/backoff.ts";
import { describeError } from "../../runtime/errors.ts";
import type { Logger } from "../../runtime/logger.ts";
import type { ClaimBatch, HeldLease } from "../backend.ts";
import type { ClaimOptions, Lease, SessionRef, WakeQueue } from "../session-log.ts";
import { SUSPECT_AFTER } from "../takeover.ts";
import { BackedLease } from "./backed-lease.ts";
import type { StoreDeps } from "./backed-log.ts";
import { Doorbell } from "./doorbell.ts";
import { closingEvents } from "./settlement.ts";

/**
 * Cost and speed of takeover; safety never depends on them
 * (docs/design/session-log.md#leases-and-takeover). Milliseconds.
 */
export interface LeaseTimings {
  ttlMs: number;
  renewMs: number;
  /** Upper bound of the time between two claims of an idle worker. */
  pollMs: number;
}

export const DEFAULT_TIMINGS: LeaseTimings = { ttlMs: 800, renewMs: 200, pollMs: 100 };

/** Of the time a lease lives, how much may have passed since its renewal when an effect begins. */
const FRESH_SHARE = 0.7;
const HEARTBEAT_MS = 2000;
/** A suspect that has lived this long under a worker is no longer the one to blame for its death. */
const PROBATION_MS = 10_000;
const RETRY: BackoffOptions = { baseMs: 100, maxMs: 2000 };

export interface QueueDeps extends StoreDeps {
  worker: string;
  timings: LeaseTimings;
  logger: Logger;
}

/** The contract's wake queue on any backend. */
export class BackedQueue implements WakeQueue {
  readonly #deps: QueueDeps;
  /** Names this life of the worker in its tokens: one that comes back under its name is another. */
  readonly #incarnation: string;
  readonly #held = new Map<string, BackedLease>();
  /** Leases that others hold now: renewing them once more tells the store that this worker lives. */
  #fenced: HeldLease[] = [];
  #suspect: { lease: BackedLease; since: number } | undefined;
  readonly #counted = new Set<string>();
  readonly #freed: Doorbell;
  #cancelRenewal: (() => void) | undefined;
  #renewedAt = 0;
  #beatAt = Number.NEGATIVE_INFINITY;

  constructor(deps: QueueDeps) {
    this.#deps = deps;
    this.#incarnation = randomTail(deps.rng).slice(-12);
    this.#freed = new Doorbell(deps.clock);
  }

  async *claim(options: ClaimOptions): AsyncGenerator<Lease> {
    const { signal } = options;
    const { timings } = this.#deps;
    let failures = 0;
    while (!signal.aborted) {
      const free = Math.floor(options.capacity());
      if (free <= 0) {
        await this.#freed.wait(timings.pollMs, signal);
        continue;
      }
      let leases: BackedLease[];
      try {
        await this.#beat();
        leases = await this.#claimUpTo(free);
        failures = 0;
      } catch (error) {
        failures += 1;
        if (failures === 1) this.#warn(error, "claiming sessions failed, trying again");
        await this.#freed.wait(backoffMs(failures, RETRY, this.#deps.rng), signal);
        continue;
      }
      if (leases.length === 0) await this.#deps.backend.waitForWork(timings.pollMs, signal);
      yield* this.#handOut(leases, signal);
    }
  }

  workers(): Promise<{ id: string; seenAt: number }[]> {
    return this.#deps.backend.workers();
  }

  quarantined(): number {
    return this.#counted.size;
  }

  /** Stops renewing; leases still held run out by themselves. */
  close(): Promise<void> {
    this.#cancelRenewal?.();
    this.#cancelRenewal = undefined;
    this.#held.clear();
    return Promise.resolve();
  }

  /** What the caller never took, because it stopped, goes to another worker at once. */
  async *#handOut(leases: BackedLease[], signal: AbortSignal): AsyncGenerator<BackedLease> {
    let taken = 0;
    try {
      for (const lease of leases) {
        if (signal.aborted) return;
        taken += 1;
        yield lease;
      }
    } finally {
      const handBack = leases.slice(taken).map((lease) => lease.release({ kind: "requeue" }));
      await Promise.allSettled(handBack);
    }
  }

  async #claimUpTo(max: number): Promise<BackedLease[]> {
    // After a stall of this process its own leases look expired; it must not take them from itself.
    if (this.#deps.clock.monotonic() - this.#renewedAt > this.#deps.timings.ttlMs / 2) {
      await this.#renewAll();
    }
    const claimedAt = this.#deps.clock.monotonic();
    const batch = await this.#deps.backend.claim({
      worker: this.#deps.worker,
      nonce: `${this.#incarnation}-${randomTail(this.#deps.rng)}`,
      ttlMs: this.#deps.timings.ttlMs,
      max,
      suspect: this.#suspectName(),
      takesSuspect: this.#suspectName() === "",
    });
    const leases = batch.leases.map(({ ref, ...claimed }) => {
      const lease = new BackedLease(ref, claimed, {
        backend: this.#deps.backend,
        clock: this.#deps.clock,
        metrics: this.#deps.metrics,
        freshMs: this.#deps.timings.ttlMs * FRESH_SHARE,
        claimedAt,
        onOver: (over, end) => this.#drop(over, end),
        onProgress: (moved) => this.#acquit(moved),
      });
      this.#held.get(memberOf(ref))?.lose("it ran out and was claimed again");
      if (this.#held.size === 0) this.#renewedAt = this.#deps.clock.monotonic();
      this.#held.set(memberOf(ref), lease);
      return lease;
    });
    if (leases.length > 0) this.#scheduleRenewal();
    await this.#nameSuspect(leases);
    await this.#settle(batch);
    return leases;
  }

  #drop(lease: BackedLease, end: "released" | "fenced" | "abandoned"): void {
    if (this.#held.get(memberOf(lease.ref)) === lease) this.#held.delete(memberOf(lease.ref));
    this.#acquit(lease);
    if (end === "fenced") {
      this.#fenced.push({ ref: lease.ref, token: lease.token });
      this.#scheduleRenewal();
    }
    this.#freed.ring();
  }

  /** The suspect this worker holds, by its name in the tables, or ''. */
  #suspectName(): string {
    const suspect = this.#suspect;
    if (suspect === undefined) return "";
    const held = this.#deps.clock.monotonic() - suspect.since;
    return held < PROBATION_MS ? memberOf(suspect.lease.ref) : "";
  }

  /** Before anybody works on a suspect all partitions know of it, so that it alone is blamed. */
  async #nameSuspect(leases: BackedLease[]): Promise<void> {
    const lease = leases.find(({ takeover }) => takeover >= SUSPECT_AFTER);
    if (lease === undefined) return;
    this.#suspect = { lease, since: this.#deps.clock.monotonic() };
    await this.#renewAll().catch((error: unknown) => this.#warn(error, "renewing leases failed"));
  }

  #acquit(lease: BackedLease): void {
    if (this.#suspect?.lease === lease) this.#suspect = undefined;
  }

  #scheduleRenewal(): void {
    if (this.#cancelRenewal !== undefined) return;
    this.#cancelRenewal = this.#deps.clock.timer(this.#deps.timings.renewMs, () => {
      this.#cancelRenewal = undefined;
      void this.#renewAll()
        .catch((error: unknown) => this.#warn(error, "renewing leases failed"))
        .finally(() => {
          if (this.#held.size + this.#fenced.length > 0) this.#scheduleRenewal();
        });
    });
  }

  async #renewAll(): Promise<void> {
    const leases = [...this.#held.values()];
    const fenced = this.#fenced;
    if (leases.length + fenced.length === 0) return;
    const sentAt = this.#deps.clock.monotonic();
    const seqs = await this.#deps.backend.renew([...leases, ...fenced], {
      ttlMs: this.#deps.timings.ttlMs,
      incarnation: this.#incarnation,
      suspect: this.#suspectName(),
    });
    this.#fenced = this.#fenced.filter((lease) => !fenced.includes(lease));
    this.#renewedAt = this.#deps.clock.monotonic();
    for (const [i, lease] of leases.entries()) {
      const seq = seqs[i] ?? null;
      if (seq !== null) {
        lease.renewed(sentAt);
        lease.noticeTail(seq);
      } else if (this.#held.get(memberOf(lease.ref)) === lease && !lease.ending) {
        lease.lose("another worker has claimed the session, or it has been deleted");
      }
    }
  }

  /** Counts sessions that were set aside, and closes their logs; what fails is told again. */
  async #settle(batch: ClaimBatch): Promise<void> {
    const { backend, logger, rng } = this.#deps;
    for (const { ref, epoch, status, why } of batch.unsettled) {
      const name = `${memberOf(ref)}@${epoch}`;
      if (status === "quarantined" && !this.#counted.has(name)) {
        this.#counted.add(name);
        logger.error({ sessionId: ref.id, epoch }, "session quarantined");
      }
      try {
        const events = await closingEvents(backend, ref, { status, why, rng });
        await backend.settle(ref, { epoch, events });
      } catch (error) {
        this.#warn(error, "closing the log of a quarantined session failed, trying again");
      }
    }
  }

  async #beat(): Promise<void> {
    const now = this.#deps.clock.monotonic();
    if (now - this.#beatAt < HEARTBEAT_MS) return;
    await this.#deps.backend.heartbeat(this.#deps.worker);
    this.#beatAt = now;
  }

  #warn(error: unknown, message: string): void {
    this.#deps.logger.warn({ worker: this.#deps.worker, err: describeError(error) }, message);
  }
}

function memberOf(ref: SessionRef): string {
  return `${ref.tenant}:${ref.id}`;
}

/** Unique per call. */
function randomTail(rng: { id(prefix: string): string }): string {
  return rng.id("n").slice(2).replaceAll("-", "");
}
