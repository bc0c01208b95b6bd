import type { SessionSnapshot } from "../../protocol/snapshot.ts";
import type { AppError } from "../../runtime/errors.ts";
import type { LogState } from "../log-state.ts";
import type {
  Durability,
  PoolConfig,
  SandboxBinding,
  Seq,
  SessionRef,
  StoredEvent,
} from "../session-log.ts";

/** A whole log in memory; `events[i].seq` is i + 1. */
export interface LogImage {
  ref: SessionRef;
  state: LogState;
  events: StoredEvent[];
  /** Idempotency keys: first seq of the batch and the time it was appended. */
  keys: Map<string, { first: Seq; ms: number }>;
  snapshot: SessionSnapshot;
}

/** What one transition added to a log besides its new state. */
export interface LogStep {
  appended: readonly StoredEvent[];
  key: { key: string; first: Seq; ms: number } | undefined;
  dropped: readonly string[];
}

export interface SharedRecords {
  bindings: ReadonlyMap<string, SandboxBinding>;
  pools: ReadonlyMap<string, PoolConfig>;
}

/** Where the memory backend's transitions go so that they survive the process. */
export interface Journal {
  readonly restored: {
    logs: readonly LogImage[];
    /** Why a session cannot be used, by `memberOf` it. */
    damaged: ReadonlyMap<string, AppError>;
  } & SharedRecords;
  /** Called in the order of the transitions; never throws. A failure shows at `flush`. */
  created(log: LogImage): void;
  stepped(log: LogImage, step: LogStep): void;
  /** Resolves when everything so far has reached the system (`applied`) or the disk (`committed`). */
  flush(ref: SessionRef, durability: Durability): Promise<void>;
  removed(ref: SessionRef): Promise<void>;
  shared(records: SharedRecords): Promise<void>;
  close(): Promise<void>;
}

/** Keeps nothing. */
export const noJournal: Journal = {
  restored: { logs: [], damaged: new Map(), bindings: new Map(), pools: new Map() },
  created() {},
  stepped() {},
  flush: () => Promise.resolve(),
  removed: () => Promise.resolve(),
  shared: () => Promise.resolve(),
  close: () => Promise.resolve(),
};

export function memberOf(ref: SessionRef): string {
  return `${ref.tenant}:${ref.id}`;
}
