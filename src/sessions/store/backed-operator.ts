import type { SessionSnapshot } from "../../protocol/snapshot.ts";
import { describeError } from "../../runtime/errors.ts";
import type { Logger } from "../../runtime/logger.ts";
import type { LogBackend } from "../backend.ts";
import type {
  CreateSession,
  Durability,
  NewEvent,
  OperatorLog,
  PoolConfig,
  PoolKey,
  PoolRegistration,
  SandboxBinding,
  SandboxRequest,
  Seq,
  SessionRef,
  SessionState,
  StateChange,
} from "../session-log.ts";
import { BackedSessionLog, type LogDeps } from "./backed-log.ts";

/** Hints may be lost or taken by another replica; this bounds the delay. */
const POLL_MS = 1000;
/** What nobody answered is told again after this time. */
const REPEAT_MS = 10_000;

export interface OperatorDeps extends LogDeps {
  logger: Logger;
}

/** The contract's operator half on any backend. */
export class BackedOperatorLog implements OperatorLog {
  readonly #deps: OperatorDeps;
  readonly #log: BackedSessionLog;
  readonly #backend: LogBackend;

  constructor(deps: OperatorDeps) {
    this.#deps = deps;
    this.#backend = deps.backend;
    this.#log = new BackedSessionLog(deps);
  }

  createSession(session: CreateSession) {
    return this.#log.createSession(session);
  }

  emitEvents(
    ref: SessionRef,
    events: NewEvent[],
    options: { idempotencyKey: string; durability?: Durability },
  ) {
    return this.#log.emitEvents(ref, events, options);
  }

  emitWhileIdle(ref: SessionRef, events: NewEvent[], options: { idempotencyKey: string; at: Seq }) {
    return this.#log.emitWhileIdle(ref, events, options);
  }

  wake(ref: SessionRef): Promise<void> {
    return this.#log.wake(ref);
  }

  deleteSession(ref: SessionRef): Promise<void> {
    return this.#backend.remove(ref);
  }

  statusOf(refs: SessionRef[]): Promise<(SessionState | null)[]> {
    return this.#backend.statesOf(refs);
  }

  snapshotOf(ref: SessionRef): Promise<SessionSnapshot | null> {
    return this.#backend.snapshotOf(ref);
  }

  requests(signal: AbortSignal): AsyncIterable<SandboxRequest> {
    return this.#repeat({
      kind: "requests",
      list: () => this.#backend.openRequests(),
      keyOf: (request) => request.requestId,
      signal,
    });
  }

  answered(request: SandboxRequest): Promise<void> {
    return this.#backend.answered(request);
  }

  changes(signal: AbortSignal): AsyncIterable<StateChange> {
    return this.#repeat({
      kind: "changes",
      list: () => this.#backend.openChanges(),
      keyOf: ({ ref, status, why, seq, ts }) =>
        `${ref.tenant}:${ref.id}:${status}:${why}:${seq}:${ts}`,
      signal,
    });
  }

  ackState(change: StateChange): Promise<void> {
    return this.#backend.ackState(change);
  }

  bindSandbox(sandboxId: string, binding: SandboxBinding): Promise<void> {
    return this.#backend.bindSandbox(sandboxId, binding);
  }

  unbindSandbox(sandboxId: string): Promise<void> {
    return this.#backend.unbindSandbox(sandboxId);
  }

  watchPools(pools: readonly PoolKey[]): void {
    this.#backend.watchPools(pools);
  }

  registerPool(pool: PoolRegistration): Promise<PoolConfig> {
    return this.#backend.registerPool(pool);
  }

  poolConfig(code: string): Promise<PoolConfig | null> {
    return this.#backend.poolConfig(code);
  }

  close(): Promise<void> {
    return this.#log.close();
  }

  /** Yields each open item when it appears and again while it stays open; trouble with the store is ridden out. */
  async *#repeat<T>(source: {
    kind: "requests" | "changes";
    list: () => Promise<T[]>;
    keyOf: (item: T) => string;
    signal: AbortSignal;
  }): AsyncGenerator<T> {
    let told = new Map<string, number>();
    let failing = false;
    while (!source.signal.aborted) {
      let open: T[] = [];
      try {
        open = await source.list();
        failing = false;
      } catch (error) {
        if (!failing) {
          const fields = { reason: source.kind, err: describeError(error) };
          this.#deps.logger.debug(fields, "looking for work failed, trying again");
        }
        failing = true;
        await this.#pause(source.signal);
        continue;
      }
      const still = new Map<string, number>();
      for (const item of open) {
        const key = source.keyOf(item);
        const at = told.get(key);
        const now = this.#deps.clock.monotonic();
        const isDue = at === undefined || now - at >= REPEAT_MS;
        still.set(key, isDue ? now : at);
        if (isDue) yield item;
        if (source.signal.aborted) return;
      }
      told = still;
      await this.#backend.waitForOperatorWork(source.kind, POLL_MS, source.signal);
    }
  }

  async #pause(signal: AbortSignal): Promise<void> {
    // Rejects only when the signal aborts, and the loop asks for that itself.
    await this.#deps.clock.sleep(POLL_MS, signal).catch(() => {});
  }
}
