/**
 * One leader among replicas, by a Lease. A replica that cannot renew stops leading before another
 * can start, whatever the wall clocks say: both sides measure by their own monotonic clock, and the
 * times written in the Lease are for people. (No lease can stop a write that is already on its way;
 * correctness comes from elsewhere, this keeps the work from being done twice.)
 */
import { aborted } from "../runtime/abort.ts";
import type { Clock } from "../runtime/clock.ts";
import { AppError, describeError } from "../runtime/errors.ts";
import type { Logger } from "../runtime/logger.ts";
import type { Rng } from "../runtime/rng.ts";
import type { KubeClient } from "./client.ts";
import { LEASE_LOST } from "./controller-runner.ts";
import { isAlreadyExists, isConflict, isUnreachable, unlessNotFound } from "./errors.ts";
import type { KubeMetrics } from "./metrics.ts";
import { apiVersionOf, type ObjectRef } from "./objects.ts";
import { type Lease, leases } from "./resources.ts";
import { rfc3339Micro } from "./status.ts";

export interface LeaderElectorDeps {
  client: Pick<KubeClient, "get" | "create" | "patch">;
  clock: Clock;
  rng: Pick<Rng, "next">;
  logger: Logger;
  metrics: Pick<KubeMetrics, "leaderElectionMasterStatus">;
  /** Labels are for a lease that is made. */
  lease: ObjectRef & { namespace: string; labels?: Record<string, string> };
  /** Unique to this process: the pod's name and something random. */
  identity: string;
  /** Others wait this long without a renewal before they take over. Default 15 s. */
  leaseDurationMs?: number;
  /** A leader that could not renew for this long stops. Below the duration. Default 10 s. */
  renewDeadlineMs?: number;
  /** Between tries. Default 2 s. */
  retryPeriodMs?: number;
}

/** What this replica saw of the lease, and when by its own clock. */
interface Observed {
  resourceVersion: string;
  atMs: number;
}

interface Timing {
  leaseDurationMs: number;
  renewDeadlineMs: number;
  retryPeriodMs: number;
}

export class LeaderElector {
  readonly #deps: LeaderElectorDeps;
  readonly #timing: Timing;
  #observed: Observed | undefined;
  /** The lease as we wrote it last. */
  #held: Lease | undefined;
  #leading = false;
  /** The log has a line of a lease that cannot be read or written. */
  #told = false;

  constructor(deps: LeaderElectorDeps) {
    this.#deps = deps;
    this.#timing = {
      leaseDurationMs: deps.leaseDurationMs ?? 15_000,
      renewDeadlineMs: deps.renewDeadlineMs ?? 10_000,
      retryPeriodMs: deps.retryPeriodMs ?? 2_000,
    };
    deps.metrics.leaderElectionMasterStatus.set({ name: deps.lease.name }, 0);
  }

  get leading(): boolean {
    return this.#leading;
  }

  /**
   * Waits for the lease, then does `work` while keeping it. When the signal aborts, ends the work
   * and releases the lease. When the lease is lost, aborts the work's signal with code LEASE_LOST,
   * waits for it (but not beyond the lease's end) and throws: the process must end.
   */
  async lead(signal: AbortSignal, work: (signal: AbortSignal) => Promise<void>): Promise<void> {
    const renewedMs = await this.#acquire(signal);
    if (renewedMs === undefined) return;
    const { lease, identity, logger } = this.#deps;
    logger.info({ lease: lease.name, identity }, "leading");
    this.#setLeading(true);
    const lost = new AbortController();
    const ended = new AbortController();
    const renewing = this.#keep(renewedMs, lost, ended.signal);
    try {
      const stop = AbortSignal.any([signal, lost.signal]);
      await Promise.race([work(stop), this.#outOfTime(lost.signal, ended.signal)]);
    } finally {
      this.#setLeading(false);
      ended.abort();
      await renewing;
      if (!lost.signal.aborted) await this.#release();
    }
    lost.signal.throwIfAborted();
  }

  /** Resolves when the lease is lost and another may be about to lead. */
  async #outOfTime(lost: AbortSignal, ended: AbortSignal): Promise<void> {
    await aborted(lost);
    const { leaseDurationMs, renewDeadlineMs } = this.#timing;
    await this.#deps.clock.sleep(leaseDurationMs - renewDeadlineMs, ended).catch(() => {});
  }

  #setLeading(leading: boolean): void {
    this.#leading = leading;
    const { lease, metrics } = this.#deps;
    metrics.leaderElectionMasterStatus.set({ name: lease.name }, leading ? 1 : 0);
  }

  /** Tries until the lease is ours; answers when the winning try began, or undefined on abort. */
  async #acquire(signal: AbortSignal): Promise<number | undefined> {
    const { clock } = this.#deps;
    while (!signal.aborted) {
      const startMs = clock.monotonic();
      try {
        const ours = await this.#try(signal, this.#timing.renewDeadlineMs);
        this.#worked();
        if (ours) return startMs;
      } catch (error) {
        if (signal.aborted) return undefined;
        this.#failed(error, "lease cannot be read or taken");
      }
      await this.#pause(signal);
    }
    return undefined;
  }

  /** Renews until `ended`; aborts `lost` when the deadline passes or another holds the lease. */
  async #keep(renewedMs: number, lost: AbortController, ended: AbortSignal): Promise<void> {
    const { clock, lease, logger } = this.#deps;
    const lose = (why: string) => {
      if (ended.aborted || lost.signal.aborted) return;
      // Handled: another replica leads, and this process starts again.
      logger.warn({ lease: lease.name, code: LEASE_LOST, reason: why }, "lease lost");
      this.#setLeading(false);
      lost.abort(new LeaseLostError(`lease "${lease.name}" was lost: ${why}`));
    };
    let deadlineMs = renewedMs + this.#timing.renewDeadlineMs;
    const left = () => deadlineMs - clock.monotonic();
    const late = () => lose(`not renewed for ${this.#timing.renewDeadlineMs} ms`);
    // Fires on time even when a renewal hangs.
    let cancel = clock.timer(left(), late);
    while (!ended.aborted && !lost.signal.aborted) {
      await this.#pause(AbortSignal.any([ended, lost.signal]));
      if (ended.aborted || lost.signal.aborted) break;
      const startMs = clock.monotonic();
      if (left() <= 0) {
        late(); // the process was frozen: timers have not run, but the time is over
        break;
      }
      try {
        const ours = await this.#try(AbortSignal.any([ended, lost.signal]), left());
        if (!ours) {
          lose("another replica holds it");
          break;
        }
        this.#worked();
        deadlineMs = startMs + this.#timing.renewDeadlineMs;
        cancel();
        cancel = clock.timer(left(), late);
      } catch (error) {
        if (!ended.aborted && !lost.signal.aborted) {
          this.#failed(error, "lease not renewed");
        }
      }
    }
    cancel();
  }

  /** One line until it works again; the client tells of an API server that cannot be reached. */
  #failed(error: unknown, message: string): void {
    const { lease, logger } = this.#deps;
    if (isUnreachable(error) || this.#told) return;
    this.#told = true;
    logger.warn({ lease: lease.name, err: describeError(error) }, message);
  }

  #worked(): void {
    const { lease, logger } = this.#deps;
    if (this.#told) logger.info({ lease: lease.name }, "lease can be read and written again");
    this.#told = false;
  }

  /** One try to take or renew; false when another holds the lease. */
  async #try(signal: AbortSignal, timeoutMs: number): Promise<boolean> {
    const { client, clock, lease } = this.#deps;
    const options = { signal, timeoutMs: Math.max(1, timeoutMs) };
    try {
      const current = this.#held ?? (await unlessNotFound(client.get(leases, lease, options)));
      if (current === undefined) {
        this.#held = await client.create(leases, this.#build(), options);
        return true;
      }
      if (this.#held === undefined && !this.#free(current)) return false;
      const spec = this.#spec(current);
      const metadata = { resourceVersion: current.metadata.resourceVersion };
      const patch = { kind: "merge", body: { metadata, spec } } as const;
      this.#held = await client.patch(leases, lease, patch, options);
      return true;
    } catch (error) {
      // What we last wrote may no longer be what is there: read before the next try.
      this.#held = undefined;
      if (!isConflict(error) && !isAlreadyExists(error)) throw error;
      return this.#leading ? this.#stillOurs(options) : false;
    } finally {
      if (this.#held !== undefined) this.#observe(this.#held, clock.monotonic());
    }
  }

  /** After a conflict while leading: someone edited the lease; it may have been but a label. */
  async #stillOurs(options: { signal: AbortSignal; timeoutMs: number }): Promise<boolean> {
    const { client, lease, identity } = this.#deps;
    const current = await unlessNotFound(client.get(leases, lease, options));
    if (current === undefined) return true; // deleted: made again by the next renewal
    if (current.spec?.holderIdentity !== identity) return false;
    throw new AppError("CONFLICT", `lease "${lease.name}" was edited while it was renewed`);
  }

  /** Nobody's, released, ours, or not renewed for its duration by our own clock. */
  #free(current: Lease): boolean {
    const { clock, identity } = this.#deps;
    const holder = current.spec?.holderIdentity ?? "";
    const version = current.metadata.resourceVersion ?? "";
    if (this.#observed?.resourceVersion !== version) this.#observe(current, clock.monotonic());
    if (holder === "" || holder === identity) return true;
    const durationMs = (current.spec?.leaseDurationSeconds ?? 0) * 1000;
    return clock.monotonic() - (this.#observed?.atMs ?? 0) > durationMs;
  }

  #observe(current: Lease, atMs: number): void {
    this.#observed = { resourceVersion: current.metadata.resourceVersion ?? "", atMs };
  }

  #build(): Lease {
    return {
      apiVersion: apiVersionOf(leases),
      kind: leases.kind,
      metadata: { ...this.#deps.lease },
      spec: this.#spec(undefined),
    };
  }

  #spec(current: Lease | undefined): NonNullable<Lease["spec"]> {
    const { clock, identity } = this.#deps;
    const now = rfc3339Micro(clock.now());
    const same = current?.spec?.holderIdentity === identity;
    const transitions = current?.spec?.leaseTransitions ?? 0;
    return {
      holderIdentity: identity,
      leaseDurationSeconds: Math.ceil(this.#timing.leaseDurationMs / 1000),
      acquireTime: same ? (current.spec?.acquireTime ?? now) : now,
      renewTime: now,
      leaseTransitions: current === undefined || same ? transitions : transitions + 1,
    };
  }

  /** Lets the next replica lead at once; a failure only makes it wait. */
  async #release(): Promise<void> {
    const { client, clock, lease, logger } = this.#deps;
    const held = this.#held;
    if (held === undefined) return;
    this.#held = undefined;
    const body = {
      metadata: { resourceVersion: held.metadata.resourceVersion },
      spec: { holderIdentity: "", leaseDurationSeconds: 1, renewTime: rfc3339Micro(clock.now()) },
    };
    try {
      await client.patch(leases, lease, { kind: "merge", body }, { timeoutMs: 3_000 });
      logger.info({ lease: lease.name }, "lease released");
    } catch (error) {
      logger.warn({ lease: lease.name, err: describeError(error) }, "lease not released");
    }
  }

  /** A retry period and up to a fifth more, so that replicas do not knock together. */
  async #pause(signal: AbortSignal): Promise<void> {
    const { clock, rng } = this.#deps;
    const ms = this.#timing.retryPeriodMs * (1 + 0.2 * rng.next());
    await Promise.race([clock.sleep(ms, signal).catch(() => {}), aborted(signal)]);
  }
}

/** Its `code` tells controllers to stop without grace. */
export class LeaseLostError extends Error {
  readonly code = LEASE_LOST;

  constructor(message: string) {
    super(message);
    this.name = "LeaseLostError";
  }
}
