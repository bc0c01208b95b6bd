import { Waker } from "../../kube/controller.ts";
import type { Informer } from "../../kube/informer.ts";
import { isBeingDeleted, objectKey } from "../../kube/objects.ts";
import type { Clock } from "../../runtime/clock.ts";
import { describeError } from "../../runtime/errors.ts";
import type { Logger } from "../../runtime/logger.ts";
import type { OperatorLog, SessionRef } from "../../sessions/session-log.ts";
import type { AgentSession } from "../kinds.ts";
import { sessionRefOf } from "./session-ref.ts";

export interface LostLogsDeps {
  log: Pick<OperatorLog, "statusOf">;
  sessions: Pick<Informer<AgentSession>, "list">;
  clock: Clock;
  logger: Logger;
}

const EVERY_MS = 60_000;
/** One small read for each session; the pauses keep a large installation from asking in bursts. */
const BATCH = 100;
const PAUSE_MS = 250;

/**
 * Nothing tells of a log that is gone, and nobody looks at a session that rests. So every log is
 * asked for once a minute; where the status says otherwise, the controller gets a pass.
 */
export class LostLogs {
  readonly #deps: LostLogsDeps;
  readonly #waker = new Waker();
  readonly watch = this.#waker.watch;

  constructor(deps: LostLogsDeps) {
    this.#deps = deps;
  }

  async run(signal: AbortSignal): Promise<void> {
    const { clock, logger } = this.#deps;
    while (!signal.aborted) {
      await clock.sleep(EVERY_MS, signal).catch(() => {});
      try {
        await this.#look(signal);
      } catch (error) {
        // A store that is down has a condition of its own.
        logger.debug({ err: describeError(error) }, "logs of sessions not looked for");
      }
    }
  }

  async #look(signal: AbortSignal): Promise<void> {
    const { log, sessions, clock } = this.#deps;
    const followed = sessions.list().flatMap(withLog);
    for (let at = 0; at < followed.length && !signal.aborted; at += BATCH) {
      const batch = followed.slice(at, at + BATCH);
      const states = await log.statusOf(batch.map(({ ref }) => ref));
      for (const [index, { session }] of batch.entries()) {
        const isLost = states[index] === null;
        if (isLost !== saysLost(session)) this.#waker.add(objectKey(session));
      }
      await clock.sleep(PAUSE_MS, signal).catch(() => {});
    }
  }
}

function withLog(session: AgentSession): { session: AgentSession; ref: SessionRef }[] {
  const ref = sessionRefOf(session);
  const isFollowed = session.status?.sessionId !== undefined && !isBeingDeleted(session);
  return ref === undefined || !isFollowed ? [] : [{ session, ref }];
}

function saysLost({ status }: AgentSession): boolean {
  return status?.conditions?.some(({ reason }) => reason === "LogLost") ?? false;
}
