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
const PROBE_MS = 30_000;

/**
 * The session store of a process that must stay up without it (design: session-log §2): until the
 * store can be used, each verb rejects with the reason, which is how it reaches conditions. Once
 * connected the store rides out outages by itself.
 */
export class ReconnectingLog implements OperatorLog, SessionPorts {
  readonly #deps: ReconnectingLogDeps;
  readonly #connected = Promise.withResolvers<SessionStore>();
  #store: SessionStore | undefined;
  #problem: AppError | undefined = new AppError("REDIS_UNREACHABLE", "not connected to Redis yet", {
    retryable: true,
  });

  constructor(deps: ReconnectingLogDeps) {
    this.#deps = deps;
  }

  /** For `/readyz` and for the pools' conditions. */
  problem(): AppError | undefined {
    return this.#problem;
  }

  async run(signal: AbortSignal): Promise<void> {
    const { clock, rng, logger } = this.#deps;
    for (let attempt = 1; !signal.aborted; attempt += 1) {
      await this.#look();
      const problem = this.#problem;
      if (problem !== undefined && attempt % 10 === 1) {
        logger.warn(
          { err: describeError(problem), code: problem.code },
          "session store not usable",
        );
      }
      const pause = problem === undefined ? PROBE_MS : backoffMs(Math.min(attempt, 8), RETRY, rng);
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
      } else {
        await this.#deps.probe();
      }
      this.#problem = undefined;
    } catch (error) {
      this.#problem =
        error instanceof AppError
          ? error
          : new AppError("REDIS_UNREACHABLE", describeError(error), { retryable: true });
    }
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
