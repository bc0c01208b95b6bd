import type { IdleReason } from "../protocol/session-event.ts";
import type { SessionState, ToolCall } from "./session-state.ts";
import { isUnfinished, MAX_CONTINUATIONS } from "./stop-reasons.ts";

/** What the log asks a worker to do next (docs/design/session-log.md#worker). Pure. */
export type Step =
  | { kind: "terminate"; reason: "stop" | "deadline" }
  | { kind: "suspend" }
  /** A request that a dead worker left open. */
  | { kind: "abandon"; req: string }
  | { kind: "tools" }
  | { kind: "request" }
  /** `append: false`: the log already says so. */
  | { kind: "idle"; reason: IdleReason; append: boolean }
  | { kind: "closed" };

export function nextStep(state: SessionState): Step {
  if (state.terminated) return { kind: "closed" };
  if (state.stop !== undefined) return { kind: "terminate", reason: state.stop };
  if (state.openRequest !== undefined) return { kind: "abandon", req: state.openRequest.req };
  const pending = pendingCalls(state);
  // Nobody is waiting for the answer of a call that has been sent: it is settled as unknown first.
  if (state.suspended && !pending.some((call) => call.started)) return { kind: "suspend" };
  if (pending.some((call) => dutyOf(state, call) !== "wait")) return { kind: "tools" };
  if (pending.length > 0) return idle(state, "requires_action");
  if (wantsRequest(state)) return { kind: "request" };
  return idle(state, doneReason(state));
}

export function pendingCalls(state: SessionState): ToolCall[] {
  return [...state.calls.values()].filter((call) => call.result === undefined);
}

/** `wait`: only a client can move it. `deny`, `cancel`: it gets its result without running (further). */
export type CallDuty = "run" | "wait" | "deny" | "cancel";

export function dutyOf(state: SessionState, call: ToolCall): CallDuty {
  if (state.stop !== undefined || call.seq < state.interruptSeq) return "cancel";
  const { permission, target } = call.intent;
  if (permission === "deny" || call.confirmation?.allow === false) return "deny";
  if (permission === "ask" && call.confirmation === undefined) return "wait";
  return target === "custom" ? "wait" : "run";
}

/** An unseen message, an answer that is to go on, or results of this turn that the model has not seen. */
function wantsRequest(state: SessionState): boolean {
  const turnOver = state.idle?.reason === "requires_action" ? 0 : (state.idle?.seq ?? 0);
  const handled = Math.max(state.seenUpto, turnOver);
  if (state.lastMessageSeq > handled) return true;
  // What the model wanted to do next is not done, and asking again would end in the same way.
  if (state.unfinishedEnds > MAX_CONTINUATIONS) return false;
  if (goesOn(state, turnOver)) return true;
  return [...state.calls.values()].some(
    (call) =>
      call.result !== undefined && call.result.seq > handled && call.seq > state.interruptSeq,
  );
}

function goesOn({ lastEnd, interruptSeq }: SessionState, turnOver: number): boolean {
  if (lastEnd === undefined || lastEnd.seq <= Math.max(turnOver, interruptSeq)) return false;
  return isUnfinished(lastEnd.stopReason);
}

function doneReason(state: SessionState): IdleReason {
  const endSeq = state.lastEnd?.seq ?? 0;
  const interrupted = state.interruptSeq > (state.idle?.seq ?? 0);
  if (interrupted && (state.interruptSeq > endSeq || state.lastEnd?.stopReason === "interrupted")) {
    return "interrupted";
  }
  if (state.unfinishedEnds > MAX_CONTINUATIONS) return "retries_exhausted";
  return state.lastEnd?.stopReason === "refusal" ? "refusal" : "end_turn";
}

function idle(state: SessionState, reason: IdleReason): Step {
  const append = state.activitySeq > (state.idle?.seq ?? 0);
  return { kind: "idle", reason: append ? reason : (state.idle?.reason ?? reason), append };
}
