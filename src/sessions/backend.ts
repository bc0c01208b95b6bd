import type { BindingReader, LeaseReader } from "../protocol/session-ports.ts";
import type { SessionSnapshot } from "../protocol/snapshot.ts";
import type {
  AppendOp,
  AppendReply,
  BarrierReply,
  Claimed,
  ClaimOp,
  LeasedAppendOp,
  LeasedAppendReply,
  ReleaseReply,
  SettleOp,
  SettleReply,
  Unsettled,
  WakeReply,
} from "./log-state.ts";
import type {
  CreateSession,
  Durability,
  Head,
  PoolConfig,
  PoolKey,
  PoolRegistration,
  Position,
  Release,
  SandboxBinding,
  SandboxRequest,
  Seq,
  SessionRef,
  SessionState,
  StateChange,
  StoredEvent,
} from "./session-log.ts";

/**
 * What a place to keep logs must do; `store/` builds the contract of `session-log.ts` on it. Each
 * writing verb is one atomic step with the reply words of docs/design/session-log.md#atomic-steps.
 * Connection trouble is ridden out inside (the same step sent again answers DUP); what stays is
 * UNAVAILABLE when nothing can have been written, OUTCOME_UNKNOWN when it may have been.
 */
export interface LogBackend extends LeaseReader, BindingReader {
  create(session: CreateSession, gen: string): Promise<{ created: boolean; head: Head }>;
  append(
    ref: SessionRef,
    op: Omit<AppendOp, "known">,
    durability: Durability,
  ): Promise<AppendReply>;
  /** Gives up when the signal aborts. */
  appendLeased(
    ref: SessionRef,
    op: LeasedAppendOp,
    options: { durability: Durability; signal: AbortSignal },
  ): Promise<LeasedAppendReply>;
  /** OK means committed. */
  barrier(ref: SessionRef, op: { token: string; prev: Position }): Promise<BarrierReply>;
  release(
    ref: SessionRef,
    op: { token: string; seen: Seq; release: Release },
  ): Promise<ReleaseReply>;
  /** At most `max` leases, oldest `due` first within a partition. */
  claim(op: Omit<ClaimOp, "stealExpired"> & { max: number }): Promise<ClaimBatch>;
  /** In the order asked: the log's seq, or null where the token holds nothing. */
  renew(leases: readonly HeldLease[], op: RenewOp): Promise<(Seq | null)[]>;
  /** Closes the log of a session that a claim has told as unsettled; DONE when somebody has. */
  settle(ref: SessionRef, op: SettleOp): Promise<SettleReply>;
  wake(ref: SessionRef): Promise<WakeReply>;
  head(ref: SessionRef): Promise<Head | null>;
  snapshotOf(ref: SessionRef): Promise<SessionSnapshot | null>;
  /** One page; `limit` is a ceiling, an empty page is the end. Null when there is no such log. */
  read(ref: SessionRef, page: Page): Promise<StoredEvent[] | null>;
  /** Hints that something was appended, and live text. The returned function ends it. */
  watch(ref: SessionRef, watcher: LogWatcher): () => void;
  publishDelta(ref: SessionRef, delta: Delta): void;
  /** Resolves when a session may be claimable, after `ms`, or when the signal aborts. */
  waitForWork(ms: number, signal: AbortSignal): Promise<void>;
  heartbeat(worker: string): Promise<void>;
  workers(): Promise<{ id: string; seenAt: number }[]>;

  remove(ref: SessionRef): Promise<void>;
  statesOf(refs: readonly SessionRef[]): Promise<(SessionState | null)[]>;
  openRequests(): Promise<SandboxRequest[]>;
  answered(request: SandboxRequest): Promise<void>;
  openChanges(): Promise<StateChange[]>;
  ackState(change: StateChange): Promise<void>;
  /** Resolves at a hint for the operator, after `ms`, or when the signal aborts. */
  waitForOperatorWork(kind: "requests" | "changes", ms: number, signal: AbortSignal): Promise<void>;
  watchPools(pools: readonly PoolKey[]): void;
  registerPool(pool: PoolRegistration): Promise<PoolConfig>;
  poolConfig(code: string): Promise<PoolConfig | null>;
  bindSandbox(sandboxId: string, binding: SandboxBinding): Promise<void>;
  unbindSandbox(sandboxId: string): Promise<void>;
  close(): Promise<void>;
}

export interface HeldLease {
  ref: SessionRef;
  token: string;
}

export interface RenewOp {
  ttlMs: number;
  /** This life of the worker, as in the nonces of its claims. */
  incarnation: string;
  /** The suspect that the worker holds, by its name in the tables, or ''. */
  suspect: string;
}

export interface ClaimBatch {
  leases: (Claimed & { ref: SessionRef })[];
  /** Told by each claim until somebody has settled them. */
  unsettled: (Unsettled & { ref: SessionRef })[];
}

export interface Page {
  after?: Seq;
  before?: Seq;
  limit: number;
  reverse: boolean;
  /** See `EventQuery`. */
  dataOf?: ReadonlySet<string> | undefined;
}

export interface Delta {
  eventId: string;
  off: number;
  text: string;
}

export interface LogWatcher {
  /** `tail` is null when something may have been missed. */
  onHint(tail: Seq | null): void;
  onDelta?(delta: Delta): void;
}
