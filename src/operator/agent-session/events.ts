import type { AgentSessionStatus } from "../../api/agent-session.ts";
import type { RecordedEvent } from "../../kube/event-recorder.ts";
import type { AgentSession } from "../kinds.ts";
import { isCompleted } from "./plan.ts";
import { troubleSaid } from "./sandbox-wait.ts";
import type { WantedStatus } from "./status-of.ts";

/** The Events that go with a status write: one for each thing that became so, none for what stays. */
export function eventsOf(
  session: AgentSession,
  wanted: WantedStatus,
  status: AgentSessionStatus,
): RecordedEvent[] {
  const events: RecordedEvent[] = [];
  const completed = find(wanted, "Completed");
  const stalled = find(wanted, "Stalled");
  const wasStalled = session.status?.conditions?.find(({ type }) => type === "Stalled");
  if (completed?.status === "True" && !isCompleted(session)) {
    events.push(
      stalled?.status === "True"
        ? warning(completed.reason, completed.message)
        : normal("SessionCompleted", `${completed.reason}: ${completed.message || "done"}`),
    );
  } else if (stalled?.status === "True" && wasStalled?.reason !== stalled.reason) {
    events.push(warning(stalled.reason, stalled.message));
  }
  const vaults = status.conditions?.find(({ type }) => type === "VaultsResolved");
  const before = session.status?.conditions?.find(({ type }) => type === "VaultsResolved");
  if (vaults?.status === "False" && before?.status === "True") {
    events.push(warning(vaults.reason, vaults.message));
  }
  const trouble = troubleSaid(wanted);
  if (trouble !== undefined && trouble !== troubleSaid(session.status)) {
    events.push(warning(trouble, find(wanted, "Ready")?.message ?? ""));
  }
  if (completed?.reason === "Resumed") events.push(normal("SessionResumed", completed.message));
  if (wanted.state !== session.status?.state) {
    if (wanted.state === "Suspended") {
      events.push(normal("SessionSuspended", "suspended, as spec.operatingMode asks"));
    }
    if (wanted.state === "WaitingForApproval" || wanted.state === "WaitingForClientTool") {
      events.push(normal(wanted.state, find(wanted, "Ready")?.message ?? ""));
    }
  }
  return events;
}

function find(wanted: WantedStatus, type: string) {
  return wanted.conditions.find((condition) => condition.type === type);
}

function normal(reason: string, note: string): RecordedEvent {
  return { type: "Normal", reason, action: "Reconcile", note };
}

export function warning(reason: string, note: string): RecordedEvent {
  return { type: "Warning", reason, action: "Reconcile", note };
}
