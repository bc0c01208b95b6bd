import { Waker } from "../../kube/controller.ts";
import type { Clock } from "../../runtime/clock.ts";
import { describeError, isAbort } from "../../runtime/errors.ts";
import type { Logger } from "../../runtime/logger.ts";
import type { OperatorLog, SessionRef, StateChange } from "../../sessions/session-log.ts";

/**
 * Follows the state changes the log tells of, keeps the newest per session until the controller has
 * written it down, and wakes the controller. Survives a store that is down.
 */

export interface ChangeFeedDeps {
  log: Pick<OperatorLog, "changes" | "ackState">;
  clock: Clock;
  logger: Logger;
  /** Key of the AgentSession with this log; undefined when there is none (any more, or in the cache yet). */
  keyOf(ref: SessionRef): string | undefined;
}

const RETRY_MS = 1_000;
/** A change nobody wants for this long is of an object that is gone. */
const UNKNOWN_MS = 120_000;

export class ChangeFeed {
  readonly #deps: ChangeFeedDeps;
  readonly #open = new Map<string, StateChange>();
  readonly #unknownSince = new Map<string, number>();
  readonly #waker = new Waker();
  readonly watch = this.#waker.watch;

  constructor(deps: ChangeFeedDeps) {
    this.#deps = deps;
  }

  /** The newest change of this session that is not written down yet. */
  openChange(sessionId: string): StateChange | undefined {
    return this.#open.get(sessionId);
  }

  /** The status says it now: the log may forget it. */
  async written(change: StateChange): Promise<void> {
    await this.#deps.log.ackState(change);
    if (this.#open.get(change.ref.id) === change) this.#open.delete(change.ref.id);
  }

  forget(sessionId: string): void {
    this.#open.delete(sessionId);
    this.#unknownSince.delete(sessionId);
  }

  async run(signal: AbortSignal): Promise<void> {
    const { log, clock, logger } = this.#deps;
    while (!signal.aborted) {
      try {
        for await (const change of log.changes(signal)) await this.#take(change);
      } catch (error) {
        if (signal.aborted || isAbort(error)) return;
        logger.debug({ err: describeError(error) }, "state changes cannot be read; trying again");
        await clock.sleep(RETRY_MS, signal).catch(() => {});
      }
    }
  }

  async #take(change: StateChange): Promise<void> {
    const { clock, log } = this.#deps;
    const { id } = change.ref;
    const key = this.#deps.keyOf(change.ref);
    if (key === undefined) {
      const since = this.#unknownSince.get(id) ?? clock.monotonic();
      this.#unknownSince.set(id, since);
      if (clock.monotonic() - since < UNKNOWN_MS) return;
      this.forget(id);
      await log.ackState(change);
      return;
    }
    this.#unknownSince.delete(id);
    this.#open.set(id, change);
    this.#waker.add(key);
  }
}
