import type { KindName } from "./kinds.ts";

/**
 * Condition types, their reasons and the reasons of Events, with what each means. They are an
 * interface for people, alerts and GitOps tools: tests pin them and `docs/kinds` prints them.
 */

export const CONDITIONS = {
  Ready:
    "What `spec` asks for is so. Running, idle, suspended as asked and finished well all count as ready.",
  Reconciling: "True while the operator works towards what `spec` asks for.",
  Stalled: "True when it will not get there without a person; the message says what to do.",
  Completed:
    "The work given to the session is done, or the session has ended. A later message makes it False again.",
  AgentResolved: "The agent was found and pinned.",
  TemplateResolved: "The sandbox template was found and pinned, or none is needed.",
  VaultsResolved: "All credential vaults were found and may be read.",
  PoolResolved: "The harness pool was found and serves this namespace.",
  IsolationVerified: "The cluster was seen to enforce the network isolation of sandboxes.",
  VaultIdentity:
    "The vault itself keeps sessions apart: False where proxies read credentials with their pod's identity.",
} as const;
export type ConditionType = keyof typeof CONDITIONS;

/** Reasons of conditions, of the Events that go with them, and of `sandbox.lost` in the log. */
export const REASONS = {
  // Going on, or as it should be.
  Available: "Everything asked for is there.",
  Accepted: "The object was checked and can be used.",
  Resolved: "The reference was found; what it meant is in `status.resolved`.",
  NotRequired: "Nothing is referred to, and nothing needs to be.",
  NotChecked: "Not looked at yet, or not looked at in this state.",
  Settled: "There is nothing left to do.",
  Progressing: "The operator is at work, or waits for something that takes its time.",
  Pending: "The session is made and waits for a worker.",
  Running: "A worker has the session in hand.",
  Idle: "The session waits for the next message.",
  WaitingForApproval: "The session waits until somebody allows or denies a tool call.",
  WaitingForClientTool: "The session waits for the result of a tool that its client runs.",
  Suspended: "The session is suspended, as `operatingMode` asks.",
  Stopped: "The session was ended for good, as `operatingMode` asks.",
  Resumed: "A message arrived after the session had completed.",
  EndTurn: "The agent ended its turn: the work is done.",
  Interrupted: "Somebody interrupted the turn.",
  SessionIdentity: "Proxies read a session's credentials from the vault as that session.",
  PodIdentity:
    "Proxies read the credentials of all sessions from the vault as their pod: the declared fallback.",
  // In the user's hands.
  InvalidSpec: "The stored object does not fit its schema; the message names the field.",
  InvalidReference: "An object that is referred to does not exist or is itself not usable.",
  TemplateRequired: "The agent declares the agent toolset, and no sandbox template is named.",
  NamespaceNotAllowed: "The harness pool does not serve this namespace.",
  AccessDenied: "The pool's service account may not read a Secret; the message holds the grant.",
  CredentialNotFound:
    "The value that an entry names was not there when a proxy last read it; a Secret is looked at every ten seconds while sessions use it, a secret in the vault when a session needs it.",
  Failed: "The session gave up: the last `session.error` of its log says why.",
  DeadlineExceeded: "`activeDeadlineSeconds` have passed.",
  Quarantined: "The session killed its worker several times without progress and is put aside.",
  LogLost:
    "The session's log is not in Redis any more: restore it from a backup, or make the session anew.",
  NoHarness: "No worker of the harness pool is ready.",
  // Why a pod cannot start, or went away.
  ImagePullFailed: "An image does not exist or cannot be pulled.",
  Unschedulable: "No node has room for the pod, or none fits it.",
  QuotaExceeded: "A ResourceQuota or LimitRange of the namespace refuses the pod.",
  PodRefused: "Admission refused the pod; the message is the cluster's own.",
  PodFailed: "The node gave the pod up; the message is the kubelet's own.",
  ConfigError: "The kubelet cannot make the container from what the pod says.",
  CrashLoop: "A container ends again and again.",
  StartDeadlineExceeded:
    "The sandbox was not ready within the template's `startDeadlineSeconds`, for no reason that has a word of its own.",
  SetupFailed: "The set-up script failed; the message ends with its output.",
  ExitedEarly: "The container ended before it was ever ready.",
  OutOfMemory: "The container used more memory than it may.",
  Evicted: "The node put the pod out, for want of disk or memory.",
  PodDeleted: "Somebody or something deleted the pod.",
  NodeLost: "The node of the pod is gone or does not answer.",
  Unreachable: "The sandbox does not answer over the network.",
  ProcessEnded: "The process of the sandbox ended (local mode has no pods).",
  // Redis.
  RedisUnreachable: "Redis does not answer.",
  RedisAuthFailed: "Redis refused the user or the password.",
  RedisEvicts: "Redis may evict keys: its maxmemory-policy is not noeviction.",
  DurabilityNotKept: "Redis is not set up for the durability that is declared.",
  RedisUnsupported: "Redis is too old or lacks a command Drover needs.",
} as const;
export type ConditionReason = keyof typeof REASONS;

const PROGRESS = ["Settled", "Progressing", "NotChecked"] as const;
const POD_REASONS = [
  "ImagePullFailed",
  "Unschedulable",
  "QuotaExceeded",
  "PodRefused",
  "ConfigError",
  "CrashLoop",
  "OutOfMemory",
] as const;
/** Why a sandbox could not be made or went away; the model is told with its tool result. */
export const LOSS_REASONS = [
  ...POD_REASONS,
  "SetupFailed",
  "ExitedEarly",
  "StartDeadlineExceeded",
  "PodFailed",
  "Evicted",
  "PodDeleted",
  "NodeLost",
  "Unreachable",
  "ProcessEnded",
] as const satisfies readonly ConditionReason[];

/** What can keep a running session from its sandbox, until its deadline, and may go by itself. */
export const SANDBOX_WAITS = [
  "ImagePullFailed",
  "Unschedulable",
  "QuotaExceeded",
  "PodRefused",
  "ConfigError",
] as const satisfies readonly ConditionReason[];

const REDIS_REASONS = [
  "RedisUnreachable",
  "RedisAuthFailed",
  "RedisEvicts",
  "DurabilityNotKept",
  "RedisUnsupported",
] as const;

const SESSION_STALLED = [
  "InvalidSpec",
  "InvalidReference",
  "TemplateRequired",
  "NamespaceNotAllowed",
  "AccessDenied",
  "Failed",
  "DeadlineExceeded",
  "Quarantined",
  "LogLost",
  "NoHarness",
] as const;

/** Which conditions a kind carries, and which reasons each can have there. */
export const KIND_CONDITIONS: Readonly<
  Record<KindName, Partial<Record<ConditionType, readonly ConditionReason[]>>>
> = {
  Agent: {
    Ready: ["Accepted", "InvalidSpec"],
    Reconciling: PROGRESS,
    Stalled: ["Settled", "InvalidSpec"],
  },
  AgentSession: {
    Ready: [
      "Progressing",
      "Pending",
      "Running",
      "Idle",
      "WaitingForApproval",
      "WaitingForClientTool",
      "Suspended",
      "Stopped",
      "RedisUnreachable",
      ...SANDBOX_WAITS,
      ...SESSION_STALLED,
    ],
    Reconciling: [...PROGRESS, "Pending", "RedisUnreachable"],
    Stalled: ["Settled", ...SESSION_STALLED],
    Completed: [
      "Progressing",
      "EndTurn",
      "Interrupted",
      "Failed",
      "DeadlineExceeded",
      "Stopped",
      "Resumed",
    ],
    AgentResolved: ["Resolved", "InvalidReference", "InvalidSpec", "NotChecked"],
    TemplateResolved: [
      "Resolved",
      "NotRequired",
      "InvalidReference",
      "InvalidSpec",
      "TemplateRequired",
      "NotChecked",
    ],
    VaultsResolved: [
      "Resolved",
      "NotRequired",
      "InvalidReference",
      "InvalidSpec",
      "AccessDenied",
      "CredentialNotFound",
      "NotChecked",
    ],
    PoolResolved: [
      "Resolved",
      "InvalidReference",
      "InvalidSpec",
      "NamespaceNotAllowed",
      "NotChecked",
    ],
  },
  SandboxTemplate: {
    Ready: ["Accepted", "InvalidSpec"],
    Reconciling: PROGRESS,
    Stalled: ["Settled", "InvalidSpec"],
  },
  HarnessPool: {
    Ready: ["Available", "Progressing", "InvalidSpec", ...POD_REASONS, ...REDIS_REASONS],
    Reconciling: PROGRESS,
    Stalled: ["Settled", "InvalidSpec", ...POD_REASONS],
    IsolationVerified: ["NotChecked"],
    VaultIdentity: ["SessionIdentity", "PodIdentity", "NotRequired"],
  },
  CredentialVault: {
    Ready: ["Accepted", "InvalidSpec", "InvalidReference", "AccessDenied", "CredentialNotFound"],
    Reconciling: PROGRESS,
    Stalled: ["Settled", "InvalidSpec", "InvalidReference", "AccessDenied", "CredentialNotFound"],
  },
};

/** Reasons of Events that are not the reason of a condition. All of them are on an AgentSession. */
export const EVENT_REASONS = {
  SessionCompleted: "The work given to the session is done, or the session ended.",
  SessionResumed: "A message woke a completed session.",
  SessionSuspended: "The session was suspended.",
  SandboxProvisioned: "A sandbox was made and is ready.",
  SandboxLost: "A sandbox could not be made or went away; the message says why.",
  SandboxReleased: "A sandbox was deleted because the session is idle or over.",
  CleanupForced: "The finalizer was removed although not everything could be cleaned up.",
} as const;

/** Conditions of a kind in the order of `CONDITIONS`: all of them appear in its first status. */
export function conditionTypesOf(kind: KindName): ConditionType[] {
  const ofKind = KIND_CONDITIONS[kind];
  return CONDITION_TYPES.filter((type) => type in ofKind);
}

// oxlint-disable-next-line typescript/no-unsafe-type-assertion -- the keys of a literal
const CONDITION_TYPES = Object.keys(CONDITIONS) as readonly ConditionType[];
