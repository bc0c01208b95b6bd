import type { Json } from "../protocol/session-event.ts";
import type { BindingReader, LeaseReader, SnapshotReader } from "../protocol/session-ports.ts";
import type { SessionSnapshot } from "../protocol/snapshot.ts";

/**
 * The contract of the session log (docs/design/session-log.md). Three implementations keep it:
 * Redis (production), file (local mode) and memory (tests, simulation);
 * `test/contracts/session-log/` runs against each. Errors are AppErrors with the codes named at
 * each verb.
 */

/** 1 … 2^53-1, contiguous within a session. */
export type Seq = number;

/** Pool and partition are part of the id (`sessions/ids.ts`); tenant = namespace. */
export interface SessionRef {
  tenant: string;
  id: string;
}

/**
 * A place in a log: two logs that have the same one are the same up to there. `chain` proves it, '' for
 * an event of a version that knew no chain values. The start is `{seq: 0, id: "", chain: ""}`.
 */
export interface Position {
  seq: Seq;
  id: string;
  chain: string;
}

export const START: Position = { seq: 0, id: "", chain: "" };

/** Of an event, without what else it has. */
export function positionOf({ seq, id, chain }: Position): Position {
  return { seq, id, chain };
}

export interface NewEvent {
  id: string;
  type: string;
  data: Json;
}

export interface StoredEvent extends NewEvent {
  seq: Seq;
  /** Lease epoch of the writer; 0 for external writers. */
  epoch: number;
  /** Epoch ms of the log's clock, never decreasing within a log. */
  ts: number;
  /** See `Position`. */
  chain: string;
}

/** `applied`: survives the death of any worker. `committed`: survives what the pool's `commit` mode says. */
export type Durability = "applied" | "committed";

export const LOG_STATUSES = [
  "created",
  "idle",
  "running",
  "suspended",
  "terminated",
  "quarantined",
] as const;
export type LogStatus = (typeof LOG_STATUSES)[number];

export interface Head {
  pos: Position;
  /** Random id of this incarnation of the log. */
  gen: string;
  status: LogStatus;
  /** Reason of the status: a word from a closed set, '' when there is none. */
  why: string;
}

export interface CreateSession extends SessionRef {
  snapshot: SessionSnapshot;
  events: NewEvent[];
  /** Claimable at once; default true. */
  wake?: boolean;
  source: "manifest" | "api";
}

export interface EventQuery {
  /** Exclusive bounds. */
  after?: Seq;
  before?: Seq;
  limit?: number;
  reverse?: boolean;
  /** Events of other types may come with `data: null`: for a look through a long log that needs few. */
  dataOf?: ReadonlySet<string>;
  signal?: AbortSignal;
}

export type TailItem =
  | { kind: "event"; event: StoredEvent }
  | { kind: "delta"; eventId: string; off: number; text: string }
  | { kind: "rewound"; lastGood: Position }
  | { kind: "caught-up"; pos: Position };

export interface AppendResult {
  first: Seq;
  last: Seq;
  /** True when this idempotency key had been appended before; `first` is the earlier place. */
  duplicate: boolean;
}

/** What callers outside the harness use: gateway, CLI, local mode. */
export interface SessionLog {
  /** Idempotent by id: `created: false` when the log exists already (its content is left alone). */
  createSession(session: CreateSession): Promise<{ created: boolean; head: Head }>;
  /** Makes an unleased session claimable. SESSION_NOT_FOUND, SESSION_CLOSED. */
  wake(ref: SessionRef): Promise<void>;
  getSession(ref: SessionRef): Promise<{ head: Head; snapshot: SessionSnapshot } | null>;
  /** Whole events, offloaded payloads resolved, in order (or reverse). SESSION_NOT_FOUND. */
  getEvents(ref: SessionRef, query?: EventQuery): AsyncIterable<StoredEvent>;
  /** History after `after`, then live, until the signal aborts. */
  tailEvents(
    ref: SessionRef,
    options: { after: Position | null; deltas?: boolean; signal: AbortSignal },
  ): AsyncIterable<TailItem>;
  /**
   * External append; wakes the session when an event's type is in WAKING_TYPES (not for
   * sandbox.released). Durable (`committed`) when it returns unless asked otherwise.
   * SESSION_NOT_FOUND, SESSION_CLOSED, SESSION_EVENT_TOO_LARGE; SESSION_QUARANTINED for what a person
   * or a client says (`user.*`, `system.*`) to a session that is set aside: nobody would answer it.
   */
  emitEvents(
    ref: SessionRef,
    events: NewEvent[],
    options: { idempotencyKey: string; durability?: Durability },
  ): Promise<AppendResult>;
  close(): Promise<void>;
}

export interface SessionState {
  status: LogStatus;
  why: string;
  leased: boolean;
  epoch: number;
  seq: Seq;
  /** Epoch ms of the last event. */
  lts: number;
}

export interface SandboxRequest {
  ref: SessionRef;
  /** Id of the log event that asked. */
  requestId: string;
  kind: "provision" | "release";
  hand: string;
  generation: number;
}

export interface StateChange {
  ref: SessionRef;
  status: LogStatus;
  why: string;
  seq: Seq;
  ts: number;
}

/** Record of who uses a sandbox; execute tokens are signed only for the session named here. */
export interface SandboxBinding {
  sessionId: string;
  tenant: string;
  hand: string;
  generation: number;
  ip: string;
}

/** All that the operator may do with logs. It cannot read a conversation: there is no getEvents. */
export interface OperatorLog {
  createSession: SessionLog["createSession"];
  emitEvents: SessionLog["emitEvents"];
  /**
   * As `emitEvents`, only while nobody holds the session and its log ends at `at`, in one step with
   * the append; else `more` and nothing is written. For what must not meet a worker that wakes.
   */
  emitWhileIdle(
    ref: SessionRef,
    events: NewEvent[],
    options: { idempotencyKey: string; at: Seq },
  ): Promise<AppendResult | "more">;
  wake: SessionLog["wake"];
  /** Removes everything the session owns; a no-op when there is nothing. */
  deleteSession(ref: SessionRef): Promise<void>;
  /** In the order asked; null where there is no such log. */
  statusOf(refs: SessionRef[]): Promise<(SessionState | null)[]>;
  /** The frozen snapshot (template, limits): what a sandbox is built from. */
  snapshotOf(ref: SessionRef): Promise<SessionSnapshot | null>;
  /** Open sandbox requests: all of them first, then as they come; repeats until `answered`. */
  requests(signal: AbortSignal): AsyncIterable<SandboxRequest>;
  answered(request: SandboxRequest): Promise<void>;
  /** Coarse state changes of sessions made from manifests; repeats until `ackState`. */
  changes(signal: AbortSignal): AsyncIterable<StateChange>;
  /** Forgets the change unless a newer one has taken its place. */
  ackState(change: StateChange): Promise<void>;
  /** Kept until it is unbound or the session is deleted; a no-op when there is no such session. */
  bindSandbox(sandboxId: string, binding: SandboxBinding): Promise<void>;
  unbindSandbox(sandboxId: string): Promise<void>;
  /** Which pools `requests` and `changes` look at from now on; replaces the list. */
  watchPools(pools: readonly PoolKey[]): void;
  /** Finds the pool's code or makes one; the same answer after any restart. CONFLICT when none is free. */
  registerPool(pool: PoolRegistration): Promise<PoolConfig>;
  poolConfig(code: string): Promise<PoolConfig | null>;
  close(): Promise<void>;
}

/** What names a pool's keys (docs/design/session-log.md#names-and-keys). */
export interface PoolKey {
  code: string;
  partitions: number;
}

/** What makes an append `committed` (docs/design/session-log.md#commit). */
export type CommitMode =
  /** One server that syncs each write to disk. */
  | { mode: "fsync" }
  /** `n` replicas have it. */
  | { mode: "replicas"; n: number }
  /** The service answers only after a durable write to several zones. */
  | { mode: "provider" };

export interface PoolRegistration {
  /** UID of the HarnessPool: a pool made again is another pool. */
  uid: string;
  name: string;
  /** 1 … 256. */
  partitions: number;
  commit: CommitMode;
}

export interface PoolConfig extends PoolRegistration, PoolKey {}

export interface ClaimOptions {
  /** Sessions this worker can still take; asked again before each claim. */
  capacity: () => number;
  signal: AbortSignal;
}

/** The harness's port: claims sessions and, through a Lease, works on them. */
export interface WakeQueue {
  /**
   * Yields leases as sessions become claimable (bell and poll inside); renews every lease it has
   * handed out until it is released or lost. Ends when the signal aborts; leases stay valid.
   */
  claim(options: ClaimOptions): AsyncIterable<Lease>;
  workers(): Promise<{ id: string; seenAt: number }[]>;
  /** Sessions that this worker has found set aside and told of so far (for the counter). */
  quarantined(): number;
  close(): Promise<void>;
}

export type Release =
  /** Nothing to do until something arrives. */
  | { kind: "idle"; why: string }
  /** Claimable by another worker at once: hand-over. */
  | { kind: "requeue" }
  /** Claimable this many ms later by the store's clock (back-off), or at once when unread events exist. */
  | { kind: "after"; delayMs: number }
  /** When unread events exist (they may ask to resume) it becomes a hand-over. */
  | { kind: "suspended" }
  | { kind: "terminated"; why: string };

export interface LeaseEmitOptions {
  durability?: Durability;
  /** Append only if nothing arrived since `position()`; else `more`. For decisions to stop. */
  onlyIfTail?: boolean;
  /** Append and give the lease up in one step. */
  release?: Release;
}

export type EmitResult =
  /** `interleaved`: external events stand between the old position and `first`; read them. */
  | { status: "ok"; first: Seq; last: Seq; interleaved: boolean; duplicate: boolean }
  /** Nothing was written: events up to `tail` have not been read yet. */
  | { status: "more"; tail: Seq };

/** Exclusive right to work on one session. Any verb may reject with SESSION_LEASE_LOST or SESSION_REWOUND. */
export interface Lease {
  readonly ref: SessionRef;
  readonly epoch: number;
  readonly token: string;
  /** Workers that died in a row while they held it, without progress; 0 for a fresh claim. */
  readonly takeover: number;
  /** Worker whose lease ran out; '' for a fresh claim. */
  readonly previousOwner: string;
  /** Aborts when the lease is lost: drop everything, touch nothing. */
  readonly lost: AbortSignal;
  /**
   * False when the last renewal is so long ago that another worker may soon hold the session, or
   * does: begin nothing that has an effect outside the log until it is true again or `lost` aborts.
   */
  fresh(): boolean;
  getSession(): Promise<{ head: Head; snapshot: SessionSnapshot }>;
  /** Reads on from `after` (default: the start). Moves `position()` to the last event read, never back. */
  getEvents(query?: EventQuery): AsyncIterable<StoredEvent>;
  /** The last event this holder has read or written. */
  position(): Position;
  emitEvents(events: NewEvent[], options?: LeaseEmitOptions): Promise<EmitResult>;
  /** Proves that the lease holds and everything read so far is committed. Before acting on an intent that was read. */
  barrier(): Promise<void>;
  /** Called with the log's tail when events of others arrive (pub/sub, or renew as fallback). */
  onEvents(callback: (tail: Seq) => void): () => void;
  /** Live text for readers; never stored, never fails. */
  publishDelta(eventId: string, off: number, text: string): void;
  /** `more`: events arrived that were not read and the release kind is idle; the lease is kept. */
  release(release: Release): Promise<"released" | "more">;
  /**
   * Ends it here without telling the store, for when that cannot be told: it is not renewed any
   * more, so it runs out and the next claim is a takeover. Aborts `lost`; harmless when it is over.
   */
  abandon(): void;
}

export interface SessionPorts extends LeaseReader, SnapshotReader, BindingReader {}

/** The whole store: what an implementation's factory returns. */
export interface SessionStore {
  log: SessionLog;
  operator: OperatorLog;
  /** `worker` names the holder in `own` (the harness pod's UID). */
  queue(worker: string): WakeQueue;
  /** What proxy and issuer may know. */
  ports: SessionPorts;
  close(): Promise<void>;
}
