import type { AgentSessionSpec, SessionStateName } from "../../api/agent-session.ts";
import type { ConditionReason } from "../../api/conditions.ts";
import type { LogStatus } from "../../sessions/session-log.ts";
import { condition, inProgress, notWithoutHelp, readyNow, type Wanted } from "../conditions.ts";

/**
 * What an AgentSession's status says for a state of its log
 * (docs/design/operations.md#status-of-a-session). Running, idle, suspended as asked and finished
 * well are all Ready: kstatus reads Ready=False as "in progress".
 */

interface LogView {
  status: LogStatus;
  /** Reason of the status, from the log. */
  why: string;
}

export interface StatusInput {
  log: LogView;
  mode: AgentSessionSpec["operatingMode"];
  /** Some tool of the agent waits for a person's confirmation; else the client runs tools. */
  asksForApproval: boolean;
  /** `Completed` was True in the last status. */
  wasCompleted: boolean;
}

export interface WantedStatus {
  state: SessionStateName;
  /** Ready, Reconciling, Stalled, Completed. */
  conditions: Wanted[];
  /** Completed, stalled, or as the user asked: written without delay. */
  final: boolean;
}

export function statusFor(input: StatusInput): WantedStatus {
  const reached = statusOfLog(input);
  const asked = notYetAsAsked(input);
  if (asked === undefined) return reached;
  return {
    state: reached.state,
    conditions: [...inProgress("Progressing", asked), ...completedOf(reached)],
    final: false,
  };
}

/** What is still to happen before the session is as `operatingMode` asks; undefined when it is. */
function notYetAsAsked({ mode, log }: StatusInput): string | undefined {
  switch (mode) {
    case "Suspended":
      return ["suspended", "quarantined", "terminated"].includes(log.status)
        ? undefined
        : "the session is asked to suspend; its worker does so at the next step";
    case "Stopped":
      return ["quarantined", "terminated"].includes(log.status)
        ? undefined
        : "the session is asked to stop; its worker does so at the next step";
    case "Running":
      return log.status === "suspended"
        ? "the session is asked to resume; a worker takes it up"
        : undefined;
  }
}

function statusOfLog(input: StatusInput): WantedStatus {
  const { log } = input;
  switch (log.status) {
    case "created":
      return pending("the session waits for a worker of its harness pool", input);
    case "running":
      return {
        state: "Running",
        conditions: [...readyNow("Running"), unfinished(input)],
        final: false,
      };
    case "idle":
      return statusOfIdle(input);
    case "suspended":
      return suspended(input);
    case "terminated":
      return statusOfTerminated(log.why);
    case "quarantined":
      // Suspending a quarantined session is how a person takes it in hand; resuming lifts it.
      if (input.mode === "Suspended") return suspended(input);
      return {
        state: "Quarantined",
        conditions: [
          ...notWithoutHelp(
            "Quarantined",
            "the session ended its worker several times without progress and is put aside; look at its log, then set spec.operatingMode to Suspended and back to Running to try again, or delete it",
          ),
          unfinished(input),
        ],
        final: true,
      };
  }
}

function statusOfIdle(input: StatusInput): WantedStatus {
  switch (input.log.why) {
    case "end_turn":
      return done("EndTurn", "the agent ended its turn");
    case "interrupted":
      return done("Interrupted", "the turn was interrupted");
    case "requires_action": {
      const state = input.asksForApproval ? "WaitingForApproval" : "WaitingForClientTool";
      const message = input.asksForApproval
        ? "a tool call waits until somebody allows or denies it"
        : "the session waits for the result of a tool that its client runs";
      return {
        state,
        conditions: [...readyNow(state, message), unfinished(input)],
        final: false,
      };
    }
    case "retries_exhausted":
      return gaveUp("the model could not be used; the last session.error of the log says why");
    case "refusal":
      return gaveUp("the model refused to go on");
    default:
      // Idle without a reason: taken up again after a suspension, not yet claimed.
      return pending("the session waits for a worker of its harness pool", input);
  }
}

function statusOfTerminated(why: string): WantedStatus {
  if (why !== "deadline") {
    return {
      state: "Stopped",
      conditions: [...readyNow("Stopped"), condition("Completed", "True", "Stopped")],
      final: true,
    };
  }
  return deadlineExceeded("the session was ended when spec.activeDeadlineSeconds had passed");
}

export function deadlineExceeded(message: string): WantedStatus {
  return {
    state: "Failed",
    conditions: [
      ...notWithoutHelp("DeadlineExceeded", message),
      condition("Completed", "True", "DeadlineExceeded", message),
    ],
    final: true,
  };
}

function done(reason: ConditionReason, message: string): WantedStatus {
  return {
    state: "Idle",
    conditions: [...readyNow("Idle"), condition("Completed", "True", reason, message)],
    final: true,
  };
}

function gaveUp(message: string): WantedStatus {
  return {
    state: "Failed",
    conditions: [
      ...notWithoutHelp("Failed", message),
      condition("Completed", "True", "Failed", message),
    ],
    final: true,
  };
}

function suspended(input: StatusInput): WantedStatus {
  return {
    state: "Suspended",
    conditions: [...readyNow("Suspended"), unfinished({ ...input, wasCompleted: false })],
    final: true,
  };
}

function pending(message: string, input: StatusInput): WantedStatus {
  return {
    state: "Pending",
    conditions: [...inProgress("Pending", message), unfinished(input)],
    final: false,
  };
}

function unfinished({ wasCompleted }: Pick<StatusInput, "wasCompleted">): Wanted {
  return wasCompleted
    ? condition(
        "Completed",
        "False",
        "Resumed",
        "a message arrived after the session had completed",
      )
    : condition("Completed", "False", "Progressing");
}

function completedOf(status: WantedStatus): Wanted[] {
  return status.conditions.filter(({ type }) => type === "Completed");
}
