import { mkdir } from "node:fs/promises";
import type { Clock } from "../../runtime/clock.ts";
import type { AppError } from "../../runtime/errors.ts";
import { type Logger, silentLogger } from "../../runtime/logger.ts";
import type { Rng } from "../../runtime/rng.ts";
import type { LogBackend } from "../backend.ts";
import { MemoryBackend } from "../memory/memory-backend.ts";
import type { SessionLogMetrics } from "../metrics.ts";
import type { SessionStore } from "../session-log.ts";
import type { LeaseTimings } from "../store/backed-queue.ts";
import { assembleStore } from "../store/session-store.ts";
import { lockDirectory } from "./directory-lock.ts";
import { FileJournal } from "./file-journal.ts";

export interface FileStoreOptions {
  /** Made when it does not exist; one process at a time uses it. */
  directory: string;
  clock: Clock;
  rng: Rng;
  logger?: Logger;
  timings?: Partial<LeaseTimings>;
  metrics?: SessionLogMetrics;
  /** A session cannot go on after that: what it appends from now on is refused. */
  onWriteFailure?: (error: AppError) => void;
}

/**
 * The store of local mode: everything in memory and, step by step, in files, so that it goes on
 * after kill -9 where it was. `applied` has reached the system, `committed` the disk.
 * LOG_DIRECTORY_IN_USE while another live process holds the directory.
 */
export async function openFileSessionStore(options: FileStoreOptions): Promise<SessionStore> {
  const backend = await openFileBackend(options);
  return assembleStore({ ...options, backend });
}

/** The layer below the contract; for tests that compare replies. */
export async function openFileBackend(options: FileStoreOptions): Promise<LogBackend> {
  await mkdir(options.directory, { recursive: true, mode: 0o700 });
  const lock = await lockDirectory(options.directory);
  try {
    const journal = await FileJournal.open({ ...options, logger: options.logger ?? silentLogger });
    return new MemoryBackend({ clock: options.clock, journal, onClosed: () => lock.release() });
  } catch (error) {
    await lock.release();
    throw error;
  }
}
