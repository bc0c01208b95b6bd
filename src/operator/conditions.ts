import type { ConditionReason, ConditionType } from "../api/conditions.ts";
import type { ConditionStatus } from "../kube/status.ts";

/** A condition of ours before times and generation are added: type and reason are from the closed sets. */
export interface Wanted {
  type: ConditionType;
  status: ConditionStatus;
  reason: ConditionReason;
  message: string;
}

export function condition(
  type: ConditionType,
  status: ConditionStatus,
  reason: ConditionReason,
  message = "",
): Wanted {
  return { type, status, reason, message };
}

/** Ready, with the two that kstatus reads beside it: everything is as asked. */
export function readyNow(reason: ConditionReason, message = ""): Wanted[] {
  return [
    condition("Ready", "True", reason, message),
    condition("Reconciling", "False", "Settled"),
    condition("Stalled", "False", "Settled"),
  ];
}

/** On the way: somebody or something else has to finish. */
export function inProgress(reason: ConditionReason, message: string): Wanted[] {
  const reconciling =
    reason === "Pending" || reason === "RedisUnreachable" ? reason : "Progressing";
  return [
    condition("Ready", "False", reason, message),
    condition("Reconciling", "True", reconciling, message),
    condition("Stalled", "False", "Settled"),
  ];
}

/** Only a person can help; kstatus reports it as failed at once. */
export function notWithoutHelp(reason: ConditionReason, message: string): Wanted[] {
  return [
    condition("Ready", "False", reason, message),
    condition("Reconciling", "False", "Settled"),
    condition("Stalled", "True", reason, message),
  ];
}
