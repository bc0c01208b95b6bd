import { withDeadline } from "../runtime/abort.ts";
import { backoffMs } from "../runtime/backoff.ts";
import type { Clock } from "../runtime/clock.ts";
import { AppError, describeError } from "../runtime/errors.ts";
import type { Logger } from "../runtime/logger.ts";
import type { Rng } from "../runtime/rng.ts";
import type { OperatorLog, SessionPorts, SessionStore } from "../sessions/session-log.ts";

export interface ReconnectingLogDeps {
  /** Probes the store and connects; throws why it cannot be used. */
  connect(): Promise<SessionStore>;
  /** Asks a connected store again; throws why it cannot be relied upon. */
  probe(): Promise<void>;
  clock: Clock;
  rng: Rng;
  logger: Logger;
}

const RETRY = { baseMs: 500, maxMs: 10_000 };
/** Whether the server is still one that keeps a log. */
const PROBE_MS = 30_000;
/** Whether it answers at all. */
const ASK_MS = 2_000;
const DEADLINE_MS = 5_000;

/** A code that no pool has. */
const NO_POOL = "none";

/**
 * The session store of a process that must stay up without it
 * (docs/design/session-log.md#start-up-check): until the store can be used, each verb rejects with
 * the reason, which is how it reaches conditions. Once connected the store rides out outages by
 * itself.
 */
export class ReconnectingLog implements OperatorLog, SessionPorts {
  readonly #deps: ReconnectingLogDeps;
  readonly #connected = Promise.withResolvers<SessionStore>();
  #store: SessionStore | undefined;
  #problem: AppError | undefined = new AppError("REDIS_UNREACHABLE", "not connected to Redis yet", {
    retryable: true,
  });
  #probedAt = Number.NEGATIVE_INFINITY;
  /** The code of the problem that the log speaks of, and since when. */
  #told: { code: string; since: number } | undefined;

  constructor(deps: ReconnectingLogDeps) {
    this.#deps = deps;
  }

  /** For `/readyz` and for the pools' conditions. */
  problem(): AppError | undefined {
    return this.#problem;
  }

  async run(signal: AbortSignal): Promise<void> {
    const { clock, rng } = this.#deps;
    for (let attempt = 1; !signal.aborted; attempt += 1) {
      await this.#look();
      this.#tell();
      const problem = this.#problem;
      const pause = problem === undefined ? ASK_MS : backoffMs(Math.min(attempt, 8), RETRY, rng);
      if (problem === undefined) attempt = 0;
      await clock.sleep(pause, signal).catch(() => {});
    }
    await this.#store?.close();
  }

  async #look(): Promise<void> {
    try {
      if (this.#store === undefined) {
        this.#store = await this.#deps.connect();
        this.#connected.resolve(this.#store);
        this.#deps.logger.info({}, "session store connected");
        this.#probedAt = this.#deps.clock.monotonic();
      } else {
        await this.#ask(this.#store);
      }
      this.#problem = undefined;
    } catch (error) {
      this.#problem =
        error instanceof AppError
          ? error
          : new AppError("REDIS_UNREACHABLE", describeError(error), { retryable: true });
    }
  }

  /** After an outage and now and then: can it still be relied upon? Otherwise only: does it answer? */
  async #ask(store: SessionStore): Promise<void> {
    const { clock } = this.#deps;
    const now = clock.monotonic();
    if (this.#problem === undefined && now - this.#probedAt < PROBE_MS) {
      await withDeadline(clock, DEADLINE_MS, "asking the session store", () =>
        store.operator.poolConfig(NO_POOL),
      );
      return;
    }
    await this.#deps.probe();
    this.#probedAt = clock.monotonic();
  }

  /** One line when it cannot be used any more, or for another reason; one when it can again. */
  #tell(): void {
    const { clock, logger } = this.#deps;
    const problem = this.#problem;
    if (problem?.code === this.#told?.code) return;
    if (problem !== undefined) {
      const since = this.#told?.since ?? clock.monotonic();
      this.#told = { code: problem.code, since };
      logger.warn({ code: problem.code, err: describeError(problem) }, "session store not usable");
      return;
    }
    const durationMs = Math.round(clock.monotonic() - (this.#told?.since ?? clock.monotonic()));
    this.#told = undefined;
    logger.info({ durationMs }, "session store usable again");
  }

  async #operator(): Promise<OperatorLog> {
    if (this.#store !== undefined) return this.#store.operator;
    throw this.#problem ?? new AppError("REDIS_UNREACHABLE", "not connected to Redis yet");
  }

  async createSession(session: Parameters<OperatorLog["createSession"]>[0]) {
    return (await this.#operator()).createSession(session);
  }
  async emitEvents(...args: Parameters<OperatorLog["emitEvents"]>) {
    return (await this.#operator()).emitEvents(...args);
  }
  async emitWhileIdle(...args: Parameters<OperatorLog["emitWhileIdle"]>) {
    return (await this.#operator()).emitWhileIdle(...args);
  }
  async wake(ref: Parameters<OperatorLog["wake"]>[0]) {
    return (await this.#operator()).wake(ref);
  }
  async deleteSession(ref: Parameters<OperatorLog["deleteSession"]>[0]) {
    return (await this.#operator()).deleteSession(ref);
  }
  async statusOf(refs: Parameters<OperatorLog["statusOf"]>[0]) {
    return (await this.#operator()).statusOf(refs);
  }
  async snapshotOf(ref: Parameters<OperatorLog["snapshotOf"]>[0]) {
    return (await this.#operator()).snapshotOf(ref);
  }
  async answered(request: Parameters<OperatorLog["answered"]>[0]) {
    return (await this.#operator()).answered(request);
  }
  async ackState(change: Parameters<OperatorLog["ackState"]>[0]) {
    return (await this.#operator()).ackState(change);
  }
  async bindSandbox(...args: Parameters<OperatorLog["bindSandbox"]>) {
    return (await this.#operator()).bindSandbox(...args);
  }
  async unbindSandbox(sandboxId: string) {
    return (await this.#operator()).unbindSandbox(sandboxId);
  }
  async poolConfig(code: string) {
    return (await this.#operator()).poolConfig(code);
  }
  /** Also rejects when a store that answers has become one that loses or evicts: the pool's condition says so. */
  async registerPool(pool: Parameters<OperatorLog["registerPool"]>[0]) {
    if (this.#problem !== undefined) throw this.#problem;
    return (await this.#operator()).registerPool(pool);
  }

  watchPools(pools: Parameters<OperatorLog["watchPools"]>[0]): void {
    this.#store?.operator.watchPools(pools);
  }

  async *requests(signal: AbortSignal) {
    const store = await this.#whenConnected(signal);
    if (store !== undefined) yield* store.operator.requests(signal);
  }

  async *changes(signal: AbortSignal) {
    const store = await this.#whenConnected(signal);
    if (store !== undefined) yield* store.operator.changes(signal);
  }

  async readLease(tenant: string, sessionId: string) {
    return (await this.#ports()).readLease(tenant, sessionId);
  }
  async readSnapshot(tenant: string, sessionId: string) {
    return (await this.#ports()).readSnapshot(tenant, sessionId);
  }
  async readBinding(sandboxId: string) {
    return (await this.#ports()).readBinding(sandboxId);
  }

  /** `run` closes the store when it ends. */
  close(): Promise<void> {
    return Promise.resolve();
  }

  async #ports(): Promise<SessionPorts> {
    if (this.#store !== undefined) return this.#store.ports;
    throw new AppError("UNAVAILABLE", this.#problem?.message ?? "not connected to Redis yet", {
      retryable: true,
    });
  }

  async #whenConnected(signal: AbortSignal): Promise<SessionStore | undefined> {
    const stop = Promise.withResolvers<undefined>();
    const onAbort = () => stop.resolve(undefined);
    signal.addEventListener("abort", onAbort, { once: true });
    if (signal.aborted) onAbort();
    try {
      return await Promise.race([this.#connected.promise, stop.promise]);
    } finally {
      signal.removeEventListener("abort", onAbort);
    }
  }
}
