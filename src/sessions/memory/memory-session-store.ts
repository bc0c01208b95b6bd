import type { Clock } from "../../runtime/clock.ts";
import type { Logger } from "../../runtime/logger.ts";
import type { Rng } from "../../runtime/rng.ts";
import type { SessionLogMetrics } from "../metrics.ts";
import type { SessionStore } from "../session-log.ts";
import type { LeaseTimings } from "../store/backed-queue.ts";
import { assembleStore } from "../store/session-store.ts";
import { noJournal } from "./journal.ts";
import { MemoryBackend } from "./memory-backend.ts";

export interface MemoryStoreOptions {
  clock: Clock;
  rng: Rng;
  timings?: Partial<LeaseTimings>;
  logger?: Logger;
  metrics?: SessionLogMetrics;
}

/** A session store that lives and dies with the process: tests and simulation. */
export function createMemorySessionStore(options: MemoryStoreOptions): SessionStore {
  const backend = new MemoryBackend({ clock: options.clock, journal: noJournal });
  return assembleStore({ ...options, backend });
}
