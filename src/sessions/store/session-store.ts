import { type Logger, silentLogger } from "../../runtime/logger.ts";
import type { SessionStore } from "../session-log.ts";
import { BackedSessionLog, type StoreDeps } from "./backed-log.ts";
import { BackedOperatorLog } from "./backed-operator.ts";
import { BackedQueue, DEFAULT_TIMINGS, type LeaseTimings } from "./backed-queue.ts";

/** All ports of the contract over one backend; closing any of `log`, `operator` or the store closes it. */
export function assembleStore(
  deps: StoreDeps & { timings?: Partial<LeaseTimings> | undefined; logger?: Logger | undefined },
): SessionStore {
  const timings = { ...DEFAULT_TIMINGS, ...deps.timings };
  const logger = deps.logger ?? silentLogger;
  const { backend } = deps;
  const queues: BackedQueue[] = [];
  const close = async () => {
    await Promise.all(queues.map((queue) => queue.close()));
    await backend.close();
  };
  return {
    log: new BackedSessionLog({ ...deps, close }),
    operator: new BackedOperatorLog({ ...deps, close, logger }),
    queue(worker) {
      const queue = new BackedQueue({ ...deps, worker, timings, logger });
      queues.push(queue);
      return queue;
    },
    ports: {
      readLease: (tenant, sessionId) => backend.readLease(tenant, sessionId),
      readSnapshot: (tenant, id) => backend.snapshotOf({ tenant, id }),
      readBinding: (sandboxId) => backend.readBinding(sandboxId),
    },
    close,
  };
}
