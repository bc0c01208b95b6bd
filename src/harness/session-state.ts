import type { IdleReason, SessionEvent, SessionEventData } from "../protocol/session-event.ts";
import { heapBytes } from "../runtime/heap-bytes.ts";
import { isUnfinished } from "./stop-reasons.ts";

/**
 * What the log says about a session, as a fold of its events: the same events give the same state
 * on every worker. Nothing here knows who executes what.
 *
 * Only what later steps need is kept. A compaction replaces the events up to its `to` for the model;
 * they leave the state too, and what must be known of them beyond that are facts about calls that
 * are still open and about sandboxes.
 */

export interface ToolCall {
  intent: SessionEventData<"tool.intent">;
  /** Id of the intent event; clients name calls by it. */
  eventId: string;
  seq: number;
  /** It may have been sent, by this holder or by one before it; only calls that cannot be repeated say so. */
  started?: { seq: number };
  confirmation?: { seq: number; allow: boolean; message: string | undefined };
  result?: ToolResult;
}

interface ToolResult {
  seq: number;
  content: string;
  isError: boolean;
}

/** One generation of a hand. */
export interface SandboxRecord {
  hand: string;
  generation: number;
  requestedSeq: number;
  /** Epoch ms of the log's clock. */
  requestedAt: number;
  provisioned?: { seq: number; sandboxId: string; address: string };
  ended?: { seq: number; reason: string; message: string };
}

export interface SessionState {
  /** What the next request is made from: in the order of the log, without what a compaction replaced. */
  events: SessionEvent[];
  /** What `events` take up in memory, roughly. */
  bytes: number;
  /** Every event up to here has left `events`, or was never read. */
  compactedTo: number;
  /** Last seq folded. */
  seq: number;
  createdAt: number;
  openRequest: { req: string; upto: number; seq: number } | undefined;
  lastEnd: { seq: number; upto: number; stopReason: string } | undefined;
  /** Answers in a row that were not complete, without a message or a good result between them. */
  unfinishedEnds: number;
  /** Every event up to here has been shown to a model, or an interrupt made it void. */
  seenUpto: number;
  /** Largest `upto` of any request, ended or not. */
  attemptedUpto: number;
  lastMessageSeq: number;
  interruptSeq: number;
  /** Last event that a status_idle has to answer. */
  activitySeq: number;
  idle: { seq: number; reason: IdleReason } | undefined;
  /** In the order of their intents; settled ones that a compaction replaced are gone. */
  calls: Map<string, ToolCall>;
  sandboxes: Map<string, SandboxRecord[]>;
  suspended: boolean;
  stop: "stop" | "deadline" | undefined;
  terminated: boolean;
}

export function emptyState(): SessionState {
  return {
    events: [],
    bytes: 0,
    compactedTo: 0,
    seq: 0,
    createdAt: 0,
    openRequest: undefined,
    lastEnd: undefined,
    unfinishedEnds: 0,
    seenUpto: 0,
    attemptedUpto: 0,
    lastMessageSeq: 0,
    interruptSeq: 0,
    activitySeq: 0,
    idle: undefined,
    calls: new Map(),
    sandboxes: new Map(),
    suspended: false,
    stop: undefined,
    terminated: false,
  };
}

/** Adds the next event, in place. */
export function applyEvent(state: SessionState, event: SessionEvent): void {
  state.events.push(event);
  state.bytes += heapBytes(event.data);
  state.seq = event.seq;
  if (state.createdAt === 0) state.createdAt = event.ts;
  if (isActivity(event)) state.activitySeq = event.seq;
  switch (event.type) {
    case "user.message":
      state.lastMessageSeq = event.seq;
      state.unfinishedEnds = 0;
      return;
    case "user.interrupt":
      state.interruptSeq = event.seq;
      state.seenUpto = Math.max(state.seenUpto, state.attemptedUpto);
      return;
    case "model.request_start":
    case "model.request_end":
    case "model.request_abandoned":
      applyRequest(state, event);
      return;
    case "tool.intent":
    case "tool.started":
    case "tool.result":
    case "user.tool_confirmation":
    case "user.custom_tool_result":
      applyTool(state, event);
      return;
    case "sandbox.requested":
    case "sandbox.provisioned":
    case "sandbox.lost":
    case "sandbox.released":
      applySandbox(state, event);
      return;
    case "session.suspend_requested":
      state.suspended = true;
      return;
    case "session.resume_requested":
      state.suspended = false;
      return;
    case "session.stop_requested":
      state.stop = event.data.reason;
      return;
    case "session.status_idle":
      state.idle = { seq: event.seq, reason: event.data.stop_reason };
      return;
    case "session.terminated":
      state.terminated = true;
      return;
    case "context.compacted":
      forget(state, event);
      return;
    case "session.created":
    case "system.message":
    case "session.error":
      return;
  }
}

function isActivity({ type }: SessionEvent): boolean {
  return (
    type.startsWith("model.") ||
    type.startsWith("tool.") ||
    type === "user.message" ||
    type === "user.tool_confirmation" ||
    type === "user.custom_tool_result"
  );
}

type EventOf<T extends SessionEvent["type"]> = Extract<SessionEvent, { type: T }>;

function applyRequest(
  state: SessionState,
  event: EventOf<"model.request_start" | "model.request_end" | "model.request_abandoned">,
): void {
  if (event.type === "model.request_start") {
    const { req, upto } = event.data;
    state.openRequest = { req, upto, seq: event.seq };
    state.attemptedUpto = Math.max(state.attemptedUpto, upto);
    return;
  }
  const open = state.openRequest;
  state.openRequest = undefined;
  if (event.type === "model.request_end" && open !== undefined) {
    const { stop_reason: stopReason } = event.data;
    state.lastEnd = { seq: event.seq, upto: open.upto, stopReason };
    state.unfinishedEnds = isUnfinished(stopReason) ? state.unfinishedEnds + 1 : 0;
    state.seenUpto = Math.max(state.seenUpto, open.upto);
  }
}

function applyTool(
  state: SessionState,
  event: EventOf<
    | "tool.intent"
    | "tool.started"
    | "tool.result"
    | "user.tool_confirmation"
    | "user.custom_tool_result"
  >,
): void {
  switch (event.type) {
    case "tool.intent":
      state.calls.set(event.data.id, { intent: event.data, eventId: event.id, seq: event.seq });
      return;
    case "tool.started": {
      const call = state.calls.get(event.data.id);
      if (call !== undefined) call.started = { seq: event.seq };
      return;
    }
    case "tool.result":
      if (!event.data.is_error) state.unfinishedEnds = 0;
      settle(state.calls.get(event.data.id), {
        seq: event.seq,
        content: event.data.content,
        isError: event.data.is_error,
      });
      return;
    case "user.tool_confirmation": {
      const call = findCall(state, event.data.tool_use_id);
      if (call === undefined || call.confirmation !== undefined) return;
      const { result, deny_message: message } = event.data;
      call.confirmation = { seq: event.seq, allow: result === "allow", message };
      return;
    }
    case "user.custom_tool_result": {
      const call = findCall(state, event.data.custom_tool_use_id);
      if (call?.intent.target !== "custom") return;
      settle(call, {
        seq: event.seq,
        content: event.data.content.map((block) => block.text).join("\n"),
        isError: event.data.is_error ?? false,
      });
      return;
    }
  }
}

/** The first result stands: a client may answer after an interrupt has settled the call. */
function settle(call: ToolCall | undefined, result: ToolResult): void {
  if (call !== undefined && call.result === undefined) call.result = result;
}

/** Clients name a call by its event id; the model's id is understood too. */
function findCall(state: SessionState, id: string): ToolCall | undefined {
  return state.calls.get(id) ?? [...state.calls.values()].find((call) => call.eventId === id);
}

function applySandbox(
  state: SessionState,
  event: EventOf<"sandbox.requested" | "sandbox.provisioned" | "sandbox.lost" | "sandbox.released">,
): void {
  const { hand, generation } = event.data;
  const records = state.sandboxes.get(hand) ?? [];
  state.sandboxes.set(hand, records);
  const record = records.find((candidate) => candidate.generation === generation);
  switch (event.type) {
    case "sandbox.requested":
      if (record !== undefined) return;
      records.push({ hand, generation, requestedSeq: event.seq, requestedAt: event.ts });
      return;
    case "sandbox.provisioned": {
      if (record === undefined || record.ended !== undefined) return;
      const { sandboxId, address } = event.data;
      // Announced again after a restart of the platform: same sandbox, perhaps another address.
      const seq = record.provisioned?.seq ?? event.seq;
      record.provisioned = { seq, sandboxId, address };
      return;
    }
    case "sandbox.lost":
    case "sandbox.released": {
      if (record === undefined || record.ended !== undefined) return;
      const message = event.type === "sandbox.lost" ? event.data.message : "";
      record.ended = { seq: event.seq, reason: event.data.reason, message };
      return;
    }
  }
}

type Compaction = EventOf<"context.compacted">;

/** Drops what a compaction replaces, except what later steps ask for. */
function forget(state: SessionState, compaction: Compaction): void {
  const { to } = compaction.data;
  state.compactedTo = Math.max(state.compactedTo, to);
  const answered = new Set(
    state.events.flatMap((event) =>
      event.type === "model.request_end" && event.seq > to ? [event.data.req] : [],
    ),
  );
  state.events = state.events.filter((event) => {
    if (event === compaction) return true;
    if (event.type === "context.compacted") return false;
    if (event.seq > to) return true;
    // It says what an answer that stays had seen.
    return event.type === "model.request_start" && answered.has(event.data.req);
  });
  state.bytes = state.events.reduce((sum, event) => sum + heapBytes(event.data), 0);
  for (const [id, call] of state.calls) {
    if (call.seq <= to && call.result !== undefined) state.calls.delete(id);
  }
  for (const [hand, records] of state.sandboxes) {
    state.sandboxes.set(hand, records.filter(isNeededAfter(to)));
  }
}

/** A sandbox that ended before takes no later call; the last one still says which number comes next. */
function isNeededAfter(to: number) {
  return ({ ended }: SandboxRecord, index: number, all: readonly SandboxRecord[]) =>
    ended === undefined || ended.seq > to || index === all.length - 1;
}

/** The sandboxes as the events up to `to` tell of them: what a compaction carries. */
export function sandboxesAt(state: SessionState, to: number): SandboxRecord[] {
  return [...state.sandboxes.values()].flatMap((records) =>
    records
      .filter(({ requestedSeq }) => requestedSeq <= to)
      .map(({ provisioned, ended, ...asked }) => ({
        ...asked,
        ...(provisioned === undefined || provisioned.seq > to ? {} : { provisioned }),
        ...(ended === undefined || ended.seq > to ? {} : { ended }),
      }))
      .filter(isNeededAfter(to)),
  );
}

/**
 * The state from which a worker goes on that reads the log only from `to` on. The harness cuts where
 * a request was about to be made: then all before was seen, no call was open, and nothing had stopped
 * or suspended the session. Answers that were cut before there are not counted any more.
 */
export function stateAfter(
  to: number,
  sandboxes: NonNullable<Compaction["data"]["sandboxes"]>,
): SessionState {
  const records = sandboxes.map(({ provisioned, ended, ...asked }) => ({
    ...asked,
    ...(provisioned === undefined ? {} : { provisioned }),
    ...(ended === undefined ? {} : { ended }),
  }));
  return {
    ...emptyState(),
    seq: to,
    compactedTo: to,
    seenUpto: to,
    attemptedUpto: to,
    sandboxes: new Map(Map.groupBy(records, ({ hand }) => hand)),
  };
}

/** Events that say what became of a sandbox. */
export const SANDBOX_TYPES: ReadonlySet<string> = new Set<SessionEvent["type"]>([
  "sandbox.requested",
  "sandbox.provisioned",
  "sandbox.lost",
  "sandbox.released",
]);

export type LiveSandbox = SandboxRecord & {
  provisioned: NonNullable<SandboxRecord["provisioned"]>;
};

/** Where a pending sandbox call belongs (docs/design/session-log.md#tool-calls). */
export type CallPlace =
  /** A sandbox is there for it. */
  | { kind: "live"; record: LiveSandbox }
  /** Its sandbox is gone: it may have run there and is never sent to another. */
  | { kind: "gone"; record: SandboxRecord }
  /** The sandbox asked for it never came up: it has not run. */
  | { kind: "failed"; record: SandboxRecord }
  /** A sandbox was asked for and has not answered yet. */
  | { kind: "starting"; record: SandboxRecord }
  /** None exists that could take it: ask for this generation. */
  | { kind: "none"; nextGeneration: number };

/** The sandbox live at the call's seq, else the first provisioned after it, is the only one it may use. */
export function placeOf(state: SessionState, hand: string, callSeq: number): CallPlace {
  const records = state.sandboxes.get(hand) ?? [];
  for (const record of records) {
    if (record.ended !== undefined && record.ended.seq < callSeq) continue;
    if (record.provisioned !== undefined) {
      if (record.ended !== undefined) return { kind: "gone", record };
      return { kind: "live", record: { ...record, provisioned: record.provisioned } };
    }
    return { kind: record.ended === undefined ? "starting" : "failed", record };
  }
  return { kind: "none", nextGeneration: (records.at(-1)?.generation ?? 0) + 1 };
}
