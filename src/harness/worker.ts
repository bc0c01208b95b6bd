import type { SandboxClient } from "../protocol/sandbox-client.ts";
import { withDeadline } from "../runtime/abort.ts";
import { type BackoffOptions, backoffMs } from "../runtime/backoff.ts";
import type { Clock } from "../runtime/clock.ts";
import { codeOf, describeError, hasCode } from "../runtime/errors.ts";
import type { Runnable } from "../runtime/group.ts";
import type { Logger } from "../runtime/logger.ts";
import type { ProcessMemory } from "../runtime/process-memory.ts";
import type { Rng } from "../runtime/rng.ts";
import type { Lease, WakeQueue } from "../sessions/session-log.ts";
import type { EdgeLocator } from "./edge-address.ts";
import { Journal, toNewEvent } from "./journal.ts";
import type { McpHands } from "./mcp-hands.ts";
import { MemoryBudget, type MemoryShare, MemoryShortError } from "./memory-budget.ts";
import type { HarnessMetrics } from "./metrics.ts";
import type { Model } from "./model.ts";
import { newEvent, type RunSignals } from "./run-context.ts";
import { SessionRun } from "./session-run.ts";
import { LeaseTokens, type SessionTokens, type TokenSource } from "./tokens.ts";

/**
 * `starting`: not claiming yet. `running`: claims sessions. `draining`: claims none, hands over those
 * it holds. `stopped`: holds none. `failed`: the queue broke; its leases run out by themselves.
 */
const WORKER_STATES = ["starting", "running", "draining", "stopped", "failed"] as const;
type WorkerState = (typeof WORKER_STATES)[number];

export interface WorkerDeps {
  queue: WakeQueue;
  model: Model;
  tokens: TokenSource;
  /** Made once per session; the function gives a valid execute token for an address. */
  sandboxClient: (token: (address: string) => Promise<string>) => SandboxClient;
  /** Where sandboxes reach their repositories; absent when the install has no edge. */
  edge?: EdgeLocator | undefined;
  /** Made once per session. */
  mcp: (tokens: SessionTokens) => McpHands;
  memory: ProcessMemory;
  clock: Clock;
  rng: Rng;
  logger: Logger;
  metrics: HarnessMetrics;
  options?: Partial<WorkerOptions>;
}

export interface WorkerOptions {
  /** Sessions worked on at the same time. */
  concurrency: number;
  /** Time a session gets to come to a log boundary once the worker is to stop. */
  graceMs: number;
  /** Before a session whose work failed in this worker is tried again: it must not spin. */
  failureBackoff: BackoffOptions;
}

export interface Worker extends Runnable {
  readonly state: WorkerState;
  readonly active: number;
}

const DEFAULTS: WorkerOptions = {
  concurrency: 50,
  graceMs: 20_000,
  failureBackoff: { baseMs: 1000, maxMs: 60_000 },
};
/** After the grace, for breaking off and for the last writes. */
const BREAK_OFF_MS = 10_000;
/** Failures in a row after which a session is told and left idle. */
const GIVE_UP_AFTER = 5;

const FAILED_OFTEN = "the harness failed on this session several times; its own log says why";

/** Claims sessions and works on them until the signal aborts; then hands them over and resolves. */
export function createWorker(deps: WorkerDeps): Worker {
  return new HarnessWorker(deps);
}

class HarnessWorker implements Worker {
  readonly name = "worker";
  readonly #deps: WorkerDeps;
  readonly #options: WorkerOptions;
  readonly #sessions = new Map<Promise<void>, Lease>();
  readonly #failures = new Map<string, number>();
  readonly #budget: MemoryBudget;
  readonly #leave = new AbortController();
  readonly #hard = new AbortController();
  #state: WorkerState = "starting";
  #stoppingSince = 0;

  constructor(deps: WorkerDeps) {
    this.#deps = deps;
    this.#options = { ...DEFAULTS, ...deps.options };
    this.#budget = new MemoryBudget({ heapLimit: deps.memory.heapLimit, clock: deps.clock });
    deps.metrics.capacity.set(this.#options.concurrency);
    deps.metrics.memoryBudget.set(this.#budget.limit);
    this.#enter("starting");
  }

  get state(): WorkerState {
    return this.#state;
  }

  get active(): number {
    return this.#sessions.size;
  }

  async run(signal: AbortSignal): Promise<void> {
    this.#enter("running");
    const stopWatching = this.#watchMemory();
    try {
      const capacity = () => this.#capacity();
      for await (const lease of this.#deps.queue.claim({ capacity, signal })) this.#start(lease);
    } catch (error) {
      this.#enter("failed");
      this.#leave.abort();
      await this.#drain();
      throw error;
    } finally {
      stopWatching();
    }
    this.#enter("draining");
    this.#stoppingSince = this.#deps.clock.monotonic();
    this.#leave.abort();
    await this.#drain();
    this.#enter("stopped");
  }

  #capacity(): number {
    const { concurrency } = this.#options;
    this.#deps.metrics.memoryHeld.set(this.#budget.used);
    return Math.min(concurrency - this.#sessions.size, this.#budget.capacity());
  }

  #watchMemory(): () => void {
    const { memory, logger } = this.#deps;
    return memory.onCollection((usage) => {
      const count = this.#budget.collected(usage);
      if (count === 0) return;
      logger.warn(
        { count, liveHeap: usage.liveHeap, containerShare: usage.containerShare },
        "memory is short, a session is given to another worker",
      );
    });
  }

  #enter(state: WorkerState): void {
    this.#state = state;
    for (const name of WORKER_STATES) {
      this.#deps.metrics.state.set({ state: name }, name === state ? 1 : 0);
    }
    this.#deps.logger.info({ state }, "worker state");
  }

  #start(lease: Lease): void {
    const { metrics } = this.#deps;
    const taken = lease.previousOwner !== "";
    metrics.claims.inc({ outcome: taken ? "takeover" : "fresh" });
    if (taken) metrics.takeovers.inc({ cause: "lease_expired" });
    const task = this.#hold(lease).finally(() => {
      this.#sessions.delete(task);
      metrics.activeSessions.set(this.#sessions.size);
    });
    this.#sessions.set(task, lease);
    metrics.activeSessions.set(this.#sessions.size);
  }

  /** One session from claim to release; never rejects: one bad session fails that session only. */
  async #hold(lease: Lease): Promise<void> {
    const { clock, metrics } = this.#deps;
    const logger = this.#deps.logger.child({ sessionId: lease.ref.id, epoch: lease.epoch });
    logger.info({ attempt: lease.takeover }, "session claimed");
    const share = this.#budget.open();
    try {
      const end = await this.#work(lease, logger, share);
      this.#failures.delete(lease.ref.id);
      const outcome = end === "handed_over" && !this.#leave.signal.aborted ? "shed" : end;
      metrics.sessionEnds.inc({ outcome });
      if (outcome === "handed_over") {
        metrics.handoverDuration.observe((clock.monotonic() - this.#stoppingSince) / 1000);
      }
      logger.info({ reason: outcome }, "session given up");
    } catch (error) {
      if (hasCode(error, "SESSION_LEASE_LOST")) await this.#askLog(lease);
      if (lease.lost.aborted) {
        metrics.sessionEnds.inc({ outcome: "lost" });
        logger.info("lease lost, session left alone");
        return;
      }
      if (error instanceof MemoryShortError) {
        metrics.sessionEnds.inc({ outcome: "shed" });
        logger.warn({ reason: error.kind, err: error.message }, "no memory for the session");
        await this.#withoutRoom(lease, error, logger);
        return;
      }
      metrics.sessionEnds.inc({ outcome: "failed" });
      logger.error({ err: describeError(error), reason: codeOf(error) }, "session failed");
      await this.#putAside(lease, logger);
    } finally {
      share.close();
      // A lease that nobody works under and nobody released would be renewed for ever.
      lease.abandon();
    }
  }

  /** Others may say that the lease is lost and be behind. What the log says shows in `lease.lost`. */
  async #askLog(lease: Lease): Promise<void> {
    const ask = () => lease.barrier();
    await withDeadline(this.#deps.clock, BREAK_OFF_MS, "asking the log", ask).catch(() => {});
  }

  async #work(
    lease: Lease,
    logger: Logger,
    memory: MemoryShare,
  ): Promise<"released" | "handed_over"> {
    const { clock, rng, metrics, model, sandboxClient, edge } = this.#deps;
    const journal = new Journal({ lease, clock, memory });
    const signals: RunSignals = {
      dead: AbortSignal.any([lease.lost, journal.broken]),
      leave: AbortSignal.any([this.#leave.signal, memory.leave]),
      hard: AbortSignal.any([this.#hard.signal, memory.hard]),
    };
    const tokens = new LeaseTokens({ source: this.#deps.tokens, lease, clock, rng });
    const mcp = this.#deps.mcp(tokens);
    try {
      const { snapshot } = await withDeadline(clock, BREAK_OFF_MS, "reading the session", () =>
        lease.getSession(),
      );
      const run = new SessionRun({
        lease,
        journal,
        snapshot,
        clock,
        rng,
        logger,
        metrics,
        signals,
        model,
        tokens,
        mcp,
        sandboxClient,
        edge,
      });
      return await run.run();
    } finally {
      journal.close();
      // Servers may be slow to answer a goodbye; the session need not wait for it.
      withDeadline(clock, BREAK_OFF_MS, "closing MCP sessions", () => mcp.close()).catch(() => {});
    }
  }

  /** Leaves the session to whoever has room, or says in its log that nobody has. */
  async #withoutRoom(lease: Lease, { kind, message }: MemoryShortError, logger: Logger) {
    const { clock } = this.#deps;
    try {
      await withDeadline(clock, BREAK_OFF_MS, "giving a session up", async () => {
        if (kind === "no_room") await lease.release({ kind: "requeue" });
        else {
          await readOn(lease);
          await this.#reportFailure(lease, message);
        }
      });
    } catch (error) {
      logger.warn({ err: describeError(error) }, "session without room could not be released");
    }
  }

  /** Gives a failed session up with a delay; after several failures says so in its log and stops. */
  async #putAside(lease: Lease, logger: Logger): Promise<void> {
    const { clock, rng } = this.#deps;
    const failures = (this.#failures.get(lease.ref.id) ?? 0) + 1;
    this.#failures.set(lease.ref.id, failures);
    try {
      await withDeadline(clock, BREAK_OFF_MS, "putting a failed session aside", async () => {
        await readOn(lease);
        if (failures >= GIVE_UP_AFTER) await this.#reportFailure(lease, FAILED_OFTEN);
        else {
          const delayMs = Math.ceil(backoffMs(failures, this.#options.failureBackoff, rng));
          await lease.release({ kind: "after", delayMs });
        }
      });
    } catch (error) {
      // Abandoned, the lease runs out by itself, and the next worker sees a takeover.
      logger.warn({ err: describeError(error) }, "failed session could not be released");
    }
  }

  async #reportFailure(lease: Lease, message: string): Promise<void> {
    const { rng } = this.#deps;
    const error = newEvent(rng, "session.error", {
      type: "unknown_error",
      message,
      retry_status: "exhausted",
    });
    const idle = newEvent(rng, "session.status_idle", { stop_reason: "retries_exhausted" });
    const release = { kind: "idle" as const, why: "retries_exhausted" };
    // A message that arrives meanwhile must be read before the session may be called idle.
    while ((await lease.emitEvents([error, idle].map(toNewEvent), { release })).status === "more") {
      await readOn(lease);
    }
    this.#failures.delete(lease.ref.id);
  }

  /** Waits for the sessions to come to a boundary, then breaks off what has not. */
  async #drain(): Promise<void> {
    const { clock, logger } = this.#deps;
    const all = () => Promise.all(this.#sessions.keys());
    try {
      await withDeadline(clock, this.#options.graceMs, "handing sessions over", all);
    } catch {
      this.#hard.abort();
      logger.warn({ count: this.#sessions.size }, "grace is over, breaking off");
      await withDeadline(clock, BREAK_OFF_MS, "breaking off", all).catch(() => {
        logger.error({ count: this.#sessions.size }, "sessions left to their leases");
        for (const lease of this.#sessions.values()) lease.abandon();
      });
    }
  }
}

/** What is not read counts as new, and new events make a session claimable at once. */
async function readOn(lease: Lease): Promise<void> {
  const unread = lease.getEvents({ after: lease.position().seq })[Symbol.asyncIterator]();
  while ((await unread.next()).done !== true);
}
