import { createHash } from "node:crypto";
import { chainAt, chainValue } from "./chain.ts";
import type {
  AppendOp,
  AppendReply,
  Applied,
  BarrierReply,
  ClaimOp,
  ClaimReply,
  ClaimSurroundings,
  CreateOp,
  CreateReply,
  HandRequest,
  LeasedAppendOp,
  LeasedAppendReply,
  LogState,
  ReleaseReply,
  SettleOp,
  SettleReply,
  Surroundings,
  WakeReply,
} from "./log-state.ts";
import type {
  LogStatus,
  NewEvent,
  Position,
  Release,
  Seq,
  StateChange,
  StoredEvent,
} from "./session-log.ts";
import {
  incarnationOf,
  judgeExpired,
  QUARANTINE_REASON,
  QUARANTINED_ERROR,
  SUSPECT_AFTER,
  TELL_AGAIN_MS,
} from "./takeover.ts";

/**
 * The rules of the session log, once, as pure functions (docs/design/session-log.md#atomic-steps).
 * Memory and file stores run them; the Lua scripts say the same and are tested against them. No
 * function changes its arguments.
 */

/** Events that show that work on a session gets on. */
export const PROGRESS_TYPES: ReadonlySet<string> = new Set(["model.request_end", "tool.result"]);
const UNCLAIMABLE: ReadonlySet<LogStatus> = new Set(["suspended", "quarantined", "terminated"]);

export function create(
  state: LogState | null,
  op: CreateOp,
  at: Surroundings,
): Applied<CreateReply> {
  if (state !== null) return unchanged(state, { word: "EXISTS" });
  const empty: LogState = {
    seq: 0,
    lid: "",
    lts: 0,
    ep: 0,
    tok: "",
    own: "",
    rel: "",
    wn: 0,
    wid: "",
    ws: 0,
    wc: 0,
    ...NEW_FIELDS,
    st: "created",
    why: "",
    src: op.src,
    gen: op.gen,
    tk: 0,
    ct: at.now,
    due: op.wake ? at.now : null,
    hands: [],
    change: null,
  };
  const { state: filled, appended } = append(empty, op.events, 0, at.now);
  return { state: noteChange(filled, at.now), reply: { word: "OK" }, appended };
}

/** Append by gateway or operator. A repeated key answers DUP even when the session has closed since. */
export function appendExternal(
  state: LogState | null,
  op: AppendOp,
  at: Surroundings,
): Applied<AppendReply> {
  if (state === null) return unchanged(state, { word: "NOSESSION" });
  if (op.known !== undefined) return unchanged(state, { word: "DUP", first: op.known });
  if (state.st === "terminated") return unchanged(state, { word: "CLOSED" });
  // Nobody would answer: the sender has to know.
  if (state.st === "quarantined" && op.events.some(isInput)) {
    return unchanged(state, { word: "QUARANTINED" });
  }
  if (op.onlyIfIdleAt !== undefined && (state.tok !== "" || state.seq !== op.onlyIfIdleAt)) {
    return unchanged(state, { word: "MORE", seq: state.seq });
  }
  const { state: filled, appended } = append(state, op.events, 0, at.now);
  const first = state.seq + 1;
  let next = filled;
  if (state.tok === "") {
    for (const event of op.events) next = obeyControl(next, event, at.now);
    if (op.wake) next = makeDue(next, at.now);
  }
  return {
    state: next,
    reply: { word: "OK", first, last: next.seq },
    appended,
    key: { key: op.key, first },
  };
}

/**
 * Append by the holder of a lease, checked in the order token, repeated batch, log-matching prefix,
 * ordinal, tail. Stopping as idle always asks for the tail: else an unread message would sleep.
 */
export function appendLeased(
  state: LogState | null,
  op: LeasedAppendOp,
  at: Surroundings,
): Applied<LeasedAppendReply> {
  if (state === null) return unchanged(state, { word: "NOSESSION" });
  const repeated = op.n === state.wn && op.events[0]?.id === state.wid;
  const held = holds(state, op.token);
  if (repeated && (held || gaveUp(state, op.token))) {
    const [first, last] = [state.ws, state.ws + state.wc - 1];
    const chain = at.eventAt(last)?.chain ?? "";
    return unchanged(state, { word: "DUP", first, last, chain });
  }
  if (!held) return unchanged(state, { word: "FENCED" });
  if (!matches(state, op.prev, at) || op.n !== state.wn + 1) {
    return unchanged(state, { word: "REWOUND", seq: state.seq });
  }
  const unseen = state.seq > op.prev.seq;
  if (unseen && (op.onlyIfTail || op.release?.kind === "idle")) {
    return unchanged(state, { word: "MORE", seq: state.seq });
  }
  const { state: filled, appended } = append(state, op.events, state.ep, at.now);
  const first = state.seq + 1;
  const progressed = op.events.some((event) => PROGRESS_TYPES.has(event.type));
  const written: LogState = {
    ...filled,
    wn: op.n,
    wid: op.events[0]?.id ?? "",
    ws: first,
    wc: op.events.length,
    wt: op.events.at(-1)?.type ?? "",
    tk: progressed ? 0 : filled.tk,
    hands: [...filled.hands, ...op.events.flatMap(handRequest)],
  };
  const next =
    op.release === null
      ? setStatus(written, "running", "", at.now)
      : giveUp(written, op.release, unseen, at.now);
  const chain = appended.at(-1)?.chain ?? "";
  return { state: next, reply: { word: "OK", first, last: next.seq, chain }, appended };
}

/** Takes a session whose `due` has come; the caller looks for such sessions in order of `due`. */
export function claim(
  state: LogState | null,
  op: ClaimOp,
  at: ClaimSurroundings,
): Applied<ClaimReply> {
  if (state === null) return unchanged(state, { word: "GONE" });
  const isDue = state.due !== null && state.due <= at.now;
  if (state.qr) return isDue ? tellUnsettled(state, at.now) : unchanged(state, { word: "BUSY" });
  if (UNCLAIMABLE.has(state.st)) {
    return { state: { ...state, due: null }, reply: { word: "GONE" }, appended: [] };
  }
  if (!isDue) return unchanged(state, { word: "BUSY" });
  if (state.tok === "") return give(state, op, at.now);
  if (!op.stealExpired) return unchanged(state, { word: "BUSY" });
  const caller = incarnationOf(`0.${op.nonce}`);
  const verdict = judgeExpired(state, { ...at, ttlMs: op.ttlMs, caller });
  switch (verdict.kind) {
    case "wait":
      return unchanged(state, { word: "BUSY" });
    case "quarantine":
      return setAside({ ...state, tk: verdict.tk, kl: verdict.kl }, at);
    case "pause": {
      const { tk, kl, until } = verdict;
      const waits = { ...state, tk, kl, dt: state.tok, due: until };
      return { state: waits, reply: { word: "BUSY" }, appended: [] };
    }
    case "take":
      if (verdict.tk >= SUSPECT_AFTER && !op.takesSuspect) {
        return unchanged(state, { word: "BUSY" });
      }
      return give({ ...state, tk: verdict.tk, kl: verdict.kl }, op, at.now);
  }
}

function give(state: LogState, op: ClaimOp, now: number): Applied<ClaimReply> {
  const ep = state.ep + 1;
  const token = `${ep}.${op.nonce}`;
  const taken = state.tok !== "";
  return {
    state: {
      ...state,
      ep,
      tok: token,
      own: op.worker,
      rel: "",
      wn: 0,
      wid: "",
      ws: 0,
      wc: 0,
      wt: "",
      tk: taken ? state.tk : 0,
      dt: "",
      due: now + op.ttlMs,
    },
    reply: {
      word: "OK",
      epoch: ep,
      token,
      seq: state.seq,
      takeover: taken ? state.tk : 0,
      previousOwner: state.own,
    },
    appended: [],
  };
}

/** Says so in the log in the same step: a quarantine that nobody hears of must not be possible. */
function setAside(
  state: LogState,
  { now, member }: Pick<ClaimSurroundings, "now" | "member">,
): Applied<ClaimReply> {
  const digest = createHash("sha1").update(`${member} ${state.tok}`).digest("hex");
  const id = `sevt_${digest.slice(0, 32)}`;
  const error = { id, type: "session.error", data: QUARANTINED_ERROR };
  const { state: said, appended } = append(state, [error], 0, now);
  const free: LogState = { ...said, tok: "", own: "", rel: "", dt: "", qr: true };
  const told = tellUnsettled(setStatus(free, "quarantined", QUARANTINE_REASON, now), now);
  return { ...told, appended };
}

/** Told again until it is settled, because the answer may not arrive. */
function tellUnsettled(state: LogState, now: number): Applied<ClaimReply> {
  return {
    state: { ...state, due: now + TELL_AGAIN_MS },
    reply: { word: "UNSETTLED", epoch: state.ep, status: state.st, why: state.why },
    appended: [],
  };
}

/** Closes what is open in the log of a session that is set aside; once, whoever does it. */
export function settle(
  state: LogState | null,
  op: SettleOp,
  at: Pick<Surroundings, "now">,
): Applied<SettleReply> {
  if (state === null) return unchanged(state, { word: "NOSESSION" });
  if (!state.qr || state.ep !== op.epoch) return unchanged(state, { word: "DONE" });
  const { state: settled, appended } = append(state, op.events, 0, at.now);
  return { state: { ...settled, qr: false, due: null }, reply: { word: "OK" }, appended };
}

/** Answers the log's seq, or null when the token holds nothing. An expired, unclaimed lease may be renewed. */
export function renew(
  state: LogState | null,
  op: { token: string; ttlMs: number },
  at: Pick<Surroundings, "now">,
): Applied<Seq | null> {
  if (state === null || !holds(state, op.token)) return unchanged(state, null);
  // Whoever renews lives: what was held against the session for this lease is looked at anew.
  const dt = state.dt === op.token ? "" : state.dt;
  return { state: { ...state, dt, due: at.now + op.ttlMs }, reply: state.seq, appended: [] };
}

export function release(
  state: LogState | null,
  op: { token: string; seen: Seq; release: Release },
  at: Pick<Surroundings, "now">,
): Applied<ReleaseReply> {
  if (state === null) return unchanged(state, { word: "NOSESSION" });
  if (!holds(state, op.token)) {
    return unchanged(state, { word: gaveUp(state, op.token) ? "OK" : "FENCED" });
  }
  const unseen = state.seq > op.seen;
  if (unseen && op.release.kind === "idle") {
    return unchanged(state, { word: "MORE", seq: state.seq });
  }
  return {
    state: giveUp(state, op.release, unseen, at.now),
    reply: { word: "OK" },
    appended: [],
  };
}

export function barrier(
  state: LogState | null,
  op: { token: string; prev: Position },
  at: Surroundings,
): Applied<BarrierReply> {
  if (state === null) return unchanged(state, { word: "NOSESSION" });
  if (!holds(state, op.token)) return unchanged(state, { word: "FENCED" });
  if (!matches(state, op.prev, at)) {
    return unchanged(state, { word: "REWOUND", seq: state.seq });
  }
  return unchanged(state, { word: "OK" });
}

/** Only lets an unleased session be claimed: what must be seen is an event. */
export function wake(state: LogState | null, at: Pick<Surroundings, "now">): Applied<WakeReply> {
  if (state === null) return unchanged(state, { word: "NOSESSION" });
  if (state.st === "terminated") return unchanged(state, { word: "CLOSED" });
  if (state.tok !== "") return unchanged(state, { word: "OK" });
  return { state: makeDue(state, at.now), reply: { word: "OK" }, appended: [] };
}

export function answered(state: LogState | null, requestId: string): Applied<null> {
  if (state === null) return unchanged(state, null);
  const hands = state.hands.filter((request) => request.requestId !== requestId);
  return { state: { ...state, hands }, reply: null, appended: [] };
}

/** Forgets exactly this change; a newer one stays. */
export function ackState(state: LogState | null, seen: Omit<StateChange, "ref">): Applied<null> {
  const open = state?.change;
  if (state === null || open === null || open === undefined) return unchanged(state, null);
  const same =
    open.seq === seen.seq &&
    open.status === seen.status &&
    open.why === seen.why &&
    open.ts === seen.ts;
  return same
    ? { state: { ...state, change: null }, reply: null, appended: [] }
    : unchanged(state, null);
}

/**
 * Idempotency keys live a day; each call drops a few of the oldest, so that none takes long. `keys`
 * come in the order of their times.
 */
export function expiredKeys(
  keys: Iterable<readonly [string, { ms: number }]>,
  now: number,
): string[] {
  const old: string[] = [];
  for (const [key, { ms }] of keys) {
    if (ms >= now - KEY_LIFE_MS || old.length === KEYS_A_CALL) break;
    old.push(key);
  }
  return old;
}

/** Fields that states written by earlier versions do not have. */
export const NEW_FIELDS = { ch: "", wt: "", kl: "", dt: "", qr: false } as const;

const KEYS_A_CALL = 4;
const KEY_LIFE_MS = 24 * 60 * 60 * 1000;

function unchanged<Reply>(state: LogState | null, reply: Reply): Applied<Reply> {
  return { state, reply, appended: [] };
}

function append(
  state: LogState,
  events: readonly NewEvent[],
  epoch: number,
  now: number,
): { state: LogState; appended: StoredEvent[] } {
  const ts = Math.max(now, state.lts);
  let chain = chainAt(state.ch, state.seq);
  const appended = events.map((event, i): StoredEvent => {
    const { id, type, data } = event;
    chain = chainValue(chain, event);
    return { id, type, data, seq: state.seq + 1 + i, epoch, ts, chain };
  });
  const last = appended.at(-1);
  if (last === undefined) return { state, appended };
  const ch = `${last.seq}:${chain}`;
  return { state: { ...state, seq: last.seq, lid: last.id, lts: ts, ch }, appended };
}

/** Control events of the operator act at once on a session nobody holds; a holder obeys by itself. */
function obeyControl(state: LogState, event: NewEvent, now: number): LogState {
  switch (event.type) {
    case "session.suspend_requested":
      if (UNCLAIMABLE.has(state.st)) return state;
      return setStatus({ ...state, due: null }, "suspended", "", now);
    case "session.resume_requested":
      return isParked(state) ? setStatus({ ...state, tk: 0, qr: false }, "idle", "", now) : state;
    case "session.stop_requested":
      // A worker ends a suspended session properly; a poison one would only kill the next worker.
      if (state.st === "suspended") return setStatus(state, "idle", "", now);
      if (state.st !== "quarantined") return state;
      // The next worker that looks for work closes the log.
      return setStatus({ ...state, qr: true, due: now }, "terminated", reasonOf(event), now);
    default:
      return state;
  }
}

/** What a person or a client says to the session, as opposed to the operator's facts and requests. */
function isInput({ type }: NewEvent): boolean {
  return type.startsWith("user.") || type.startsWith("system.");
}

function isParked(state: LogState): boolean {
  return state.st === "suspended" || state.st === "quarantined";
}

function reasonOf(event: NewEvent): string {
  const reason = dataField(event, "reason");
  return typeof reason === "string" ? reason.replaceAll(/\W/g, "") : "";
}

function makeDue(state: LogState, now: number): LogState {
  if (UNCLAIMABLE.has(state.st)) return state;
  return { ...state, due: state.due === null ? now : Math.min(state.due, now) };
}

/** By equality, never by epoch: after a failover the same epoch may be given out twice. */
function holds(state: LogState, token: string): boolean {
  return token !== "" && state.tok === token;
}

function gaveUp(state: LogState, token: string): boolean {
  return state.tok === "" && token !== "" && state.rel === token;
}

/** Equal chain values prove an equal prefix; the id is for events that have none. */
function matches(state: LogState, prev: Position, at: Surroundings): boolean {
  if (prev.seq > state.seq) return false;
  if (prev.seq === 0) return true;
  const last = { id: state.lid, chain: chainAt(state.ch, state.seq) };
  const event = prev.seq === state.seq ? last : at.eventAt(prev.seq);
  return event?.id === prev.id && event.chain === prev.chain;
}

function giveUp(state: LogState, how: Release, unseen: boolean, now: number): LogState {
  const free: LogState = { ...state, tok: "", own: "", rel: state.tok, tk: 0, dt: "" };
  switch (how.kind) {
    case "idle":
      return setStatus({ ...free, due: null }, "idle", how.why, now);
    case "requeue":
      return { ...free, due: now };
    case "after":
      return { ...free, due: unseen ? now : now + how.delayMs };
    case "suspended":
      // What was not read may be the request to resume: somebody has to look.
      if (unseen) return { ...free, due: now };
      return setStatus({ ...free, due: null }, "suspended", "", now);
    case "terminated":
      return setStatus({ ...free, due: null }, "terminated", how.why, now);
  }
}

function setStatus(state: LogState, st: LogStatus, why: string, now: number): LogState {
  if (state.st === st && state.why === why) return state;
  return noteChange({ ...state, st, why }, now);
}

/** The operator is told about sessions that have an object. */
function noteChange(state: LogState, now: number): LogState {
  if (state.src !== "manifest") return state;
  return { ...state, change: { status: state.st, why: state.why, seq: state.seq, ts: now } };
}

function handRequest(event: NewEvent): HandRequest[] {
  const kind = HAND_KINDS[event.type];
  const hand = dataField(event, "hand");
  const generation = dataField(event, "generation");
  if (kind === undefined || typeof hand !== "string" || typeof generation !== "number") return [];
  return [{ requestId: event.id, kind, hand, generation }];
}

const HAND_KINDS: Readonly<Record<string, HandRequest["kind"]>> = {
  "sandbox.requested": "provision",
  "sandbox.released": "release",
};

function dataField(event: NewEvent, name: string): unknown {
  const { data } = event;
  return typeof data === "object" && data !== null && !Array.isArray(data) ? data[name] : undefined;
}
