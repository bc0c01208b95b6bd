import type { SnapshotReader } from "../protocol/session-ports.ts";
import type { SessionSnapshot } from "../protocol/snapshot.ts";
import { withDeadline } from "../runtime/abort.ts";
import { BoundedMap } from "../runtime/bounded-map.ts";
import type { Clock } from "../runtime/clock.ts";
import { AppError } from "../runtime/errors.ts";
import { TIMEOUTS } from "./limits.ts";

/** A snapshot never changes; this only bounds how long a deleted session's stays in memory. */
const CACHE_MS = 60_000;
const MAX_CACHED = 2048;

/** What each session was made from, read once and kept while the session is being served. */
export class SessionSnapshots {
  readonly #reader: SnapshotReader;
  readonly #clock: Clock;
  readonly #cached = new BoundedMap<{ snapshot: SessionSnapshot; readAt: number }>(MAX_CACHED);

  constructor({ reader, clock }: { reader: SnapshotReader; clock: Clock }) {
    this.#reader = reader;
    this.#clock = clock;
  }

  /** Throws SESSION_NOT_FOUND, or what the store throws. */
  async get(tenant: string, sessionId: string): Promise<SessionSnapshot> {
    const key = `${tenant}/${sessionId}`;
    const cached = this.#cached.get(key);
    if (cached !== undefined && this.#clock.monotonic() - cached.readAt <= CACHE_MS) {
      return cached.snapshot;
    }
    const snapshot = await withDeadline(
      this.#clock,
      TIMEOUTS.storeMs,
      "reading the session's snapshot",
      () => this.#reader.readSnapshot(tenant, sessionId),
    );
    if (snapshot === null || snapshot.tenant !== tenant) {
      throw new AppError("SESSION_NOT_FOUND", `session "${sessionId}" has no snapshot`);
    }
    this.#cached.set(key, { snapshot, readAt: this.#clock.monotonic() });
    return snapshot;
  }
}
