import type { LogStatus, NewEvent, Position, Release, Seq, StoredEvent } from "./session-log.ts";
import type { LastWord } from "./takeover.ts";

/**
 * What the state machine knows of one log besides its events: the meta hash of
 * docs/design/session-log.md#meta-hash plus what other keys of the partition hold about this
 * session (`due`, open hands, state change).
 */
export interface LogState {
  seq: Seq;
  /** Id and time of the last event. */
  lid: string;
  lts: number;
  /** Its chain value, as `<seq>:<value>`; see chain.ts. */
  ch: string;
  /** Lease epoch; rises with each claim. */
  ep: number;
  /** Lease token, '' when nobody holds the session. */
  tok: string;
  own: string;
  /** Token of the lease that was given up last, so that a repeated release is recognised. */
  rel: string;
  /** Last batch under this token: ordinal, id of its first event, first seq, count. */
  wn: number;
  wid: string;
  ws: Seq;
  wc: number;
  st: LogStatus;
  why: string;
  src: "manifest" | "api";
  gen: string;
  /** Type of the last event of that batch. */
  wt: string;
  /** Deaths of holders in a row, without progress. */
  tk: number;
  /** Those deaths, as far as known: `<incarnation>@<epoch ms>`, a space between. */
  kl: string;
  /** Token of a lease whose holder's death is counted already; it waits for the end of a pause. */
  dt: string;
  /** Set aside, or ended while set aside, and a worker has still to settle what is open in the log. */
  qr: boolean;
  /** Epoch ms of creation. */
  ct: number;
  /** Epoch ms at which a worker may claim it; null when there is nothing to do. */
  due: number | null;
  hands: readonly HandRequest[];
  change: LogChange | null;
}

/** An open sandbox request. */
export interface HandRequest {
  requestId: string;
  kind: "provision" | "release";
  hand: string;
  generation: number;
}

/** A coarse state that the operator has not written down yet. */
interface LogChange {
  status: LogStatus;
  why: string;
  seq: Seq;
  ts: number;
}

/** What a transition leaves: the caller stores all of it at once or nothing. */
export interface Applied<Reply> {
  state: LogState | null;
  reply: Reply;
  appended: StoredEvent[];
  /** Idempotency key to remember with the first seq of its batch. */
  key?: { key: string; first: Seq };
}

export interface Surroundings {
  /** Epoch ms of the store's clock. */
  now: number;
  /** The event at this seq, if the log has it. */
  eventAt: (seq: Seq) => Pick<StoredEvent, "id" | "chain"> | undefined;
}

export interface CreateOp {
  gen: string;
  src: "manifest" | "api";
  wake: boolean;
  events: readonly NewEvent[];
}
export interface AppendOp {
  /** First seq of the batch that this idempotency key appended before, if it did. */
  known: Seq | undefined;
  key: string;
  wake: boolean;
  /** Append only while nobody holds the session and the log ends here. */
  onlyIfIdleAt?: Seq | undefined;
  events: readonly NewEvent[];
}
export interface LeasedAppendOp {
  token: string;
  /** Ordinal of the batch under this token, from 1. */
  n: number;
  prev: Position;
  onlyIfTail: boolean;
  release: Release | null;
  events: readonly NewEvent[];
}
export interface ClaimOp {
  worker: string;
  /** `<incarnation of the worker>-<unique per claim call>`. */
  nonce: string;
  ttlMs: number;
  stealExpired: boolean;
  /** The suspect that the worker holds already, by its name in the tables, or ''. */
  suspect: string;
  /** Whether it may take a suspect (see takeover.ts). */
  takesSuspect: boolean;
}
/** Which session, and what is known of those who held it. */
export interface ClaimSurroundings {
  now: number;
  member: string;
  heard: (incarnation: string) => LastWord | undefined;
}
export interface SettleOp {
  epoch: number;
  events: readonly NewEvent[];
}

/** Status words are those of the scripts (docs/design/session-log.md#atomic-steps). */
export type CreateReply = { word: "OK" | "EXISTS" };
export type AppendReply =
  | { word: "OK"; first: Seq; last: Seq }
  | { word: "DUP"; first: Seq }
  | { word: "MORE"; seq: Seq }
  | { word: "NOSESSION" | "CLOSED" | "QUARANTINED" };
export type LeasedAppendReply =
  /** `chain` is that of the last event. */
  | { word: "OK" | "DUP"; first: Seq; last: Seq; chain: string }
  | { word: "MORE" | "REWOUND"; seq: Seq }
  | { word: "FENCED" | "NOSESSION" };
export type BarrierReply = { word: "OK" | "FENCED" | "NOSESSION" } | { word: "REWOUND"; seq: Seq };
export type ReleaseReply = { word: "OK" | "FENCED" | "NOSESSION" } | { word: "MORE"; seq: Seq };
export type WakeReply = { word: "OK" | "NOSESSION" | "CLOSED" };
export interface Claimed {
  epoch: number;
  token: string;
  /** Of the log's last event. */
  seq: Seq;
  takeover: number;
  previousOwner: string;
}
/** A session that is set aside, or was ended while it was, and whose log is not settled yet. */
export interface Unsettled {
  epoch: number;
  status: LogStatus;
  why: string;
}
export type ClaimReply =
  | ({ word: "OK" } & Claimed)
  | ({ word: "UNSETTLED" } & Unsettled)
  | { word: "BUSY" | "GONE" };
export type SettleReply = { word: "OK" | "DONE" | "NOSESSION" };
