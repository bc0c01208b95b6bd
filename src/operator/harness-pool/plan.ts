import type { ConditionReason } from "../../api/conditions.ts";
import type { HarnessPoolStatus } from "../../api/harness-pool.ts";
import { isBeingDeleted } from "../../kube/objects.ts";
import { mergeConditions } from "../../kube/status.ts";
import { codeOf, describeError } from "../../runtime/errors.ts";
import { condition, inProgress, notWithoutHelp, readyNow, type Wanted } from "../conditions.ts";
import type { VaultAccess } from "../install-settings.ts";
import type { ContainerStatus, Deployment, HarnessPool, Pod } from "../kinds.ts";
import { selectorText } from "./resources.ts";

export interface Observed {
  pool: HarnessPool;
  now: number;
  /** Why Redis cannot be used, or cannot be relied upon; undefined when it can. */
  storeProblem?: { reason: ConditionReason; message: string } | undefined;
  code: string | undefined;
  deployment: Deployment | undefined;
  /** The pool's pods. */
  pods: readonly Pod[];
  vault: VaultAccess | undefined;
}

export function planStatus(observed: Observed): HarnessPoolStatus {
  const { pool, now, code, deployment } = observed;
  const { generation = 0 } = pool.metadata;
  const wanted = [...planConditions(observed), NOT_VERIFIED, vaultIdentity(observed.vault)];
  const merged = mergeConditions(pool.status?.conditions, wanted, { generation, nowMs: now });
  return {
    ...pool.status,
    observedGeneration: generation,
    replicas: deployment?.status?.replicas ?? 0,
    readyReplicas: deployment?.status?.readyReplicas ?? 0,
    selector: selectorText(pool.metadata.name),
    code,
    conditions: merged.map((one) => ({ ...one, observedGeneration: generation })),
  };
}

const NOT_VERIFIED = condition(
  "IsolationVerified",
  "Unknown",
  "NotChecked",
  "Drover applies NetworkPolicies; whether this cluster's network enforces them has not been probed",
);

/**
 * docs/design/security.md#vault: reading what belongs to sessions as the pod is a fallback, and
 * shows.
 */
function vaultIdentity(vault: VaultAccess | undefined): Wanted {
  if (vault === undefined) return condition("VaultIdentity", "True", "NotRequired");
  if (vault.sessionIdentity === "session") {
    return condition("VaultIdentity", "True", "SessionIdentity");
  }
  return condition(
    "VaultIdentity",
    "False",
    "PodIdentity",
    "the vault does not keep sessions apart: each proxy may read the credentials of all; set vault.sessionIdentity=session of the chart once the vault has the JWT method",
  );
}

function planConditions(observed: Observed): Wanted[] {
  const { storeProblem, deployment, pool, pods } = observed;
  if (storeProblem !== undefined) return inProgress(storeProblem.reason, storeProblem.message);
  const wanted = pool.spec.replicas;
  const status = deployment?.status;
  const ready = status?.readyReplicas ?? 0;
  const current =
    deployment !== undefined &&
    (status?.observedGeneration ?? 0) >= (deployment.metadata.generation ?? 0);
  const updated = status?.updatedReplicas ?? 0;
  if (current && ready >= wanted && updated >= wanted) {
    return readyNow("Available", wanted === 0 ? "scaled to zero: sessions wait" : "");
  }
  const trouble = troubleOf(pods) ?? refusalOf(deployment);
  if (trouble !== undefined) {
    const report = HELPS_ITSELF.has(trouble.reason) ? inProgress : notWithoutHelp;
    return report(trouble.reason, trouble.message);
  }
  return inProgress("Progressing", `${ready} of ${wanted} harness pods are ready`);
}

/** A node may come; a worker ends again and again while Redis is down, and not when it is back. */
const HELPS_ITSELF: ReadonlySet<ConditionReason> = new Set(["Unschedulable", "CrashLoop"]);

interface PoolTrouble {
  reason: ConditionReason;
  message: string;
}

/** What keeps a pod of the pool from running, in the kubelet's and scheduler's own words. */
function troubleOf(pods: readonly Pod[]): PoolTrouble | undefined {
  for (const pod of pods) {
    // What ails a pod that is on its way out keeps nothing from running.
    if (isBeingDeleted(pod)) continue;
    const { name } = pod.metadata;
    const scheduled = pod.status?.conditions?.find(({ type }) => type === "PodScheduled");
    if (scheduled?.status === "False") {
      return { reason: "Unschedulable", message: `pod ${name}: ${scheduled.message ?? ""}` };
    }
    const containers = [
      ...(pod.status?.initContainerStatuses ?? []),
      ...(pod.status?.containerStatuses ?? []),
    ];
    for (const container of containers) {
      const reason = reasonOf(container);
      if (reason === undefined) continue;
      const text = container.state?.waiting?.message ?? "";
      return { reason, message: `container ${container.name} of pod ${name}: ${text}` };
    }
  }
  return undefined;
}

function reasonOf({ state, lastState }: ContainerStatus): ConditionReason | undefined {
  switch (state?.waiting?.reason ?? "") {
    case "ImagePullBackOff":
    case "InvalidImageName":
    case "ErrImageNeverPull":
      return "ImagePullFailed";
    case "CreateContainerConfigError":
      return "ConfigError";
    case "CrashLoopBackOff":
      return lastState?.terminated?.reason === "OOMKilled" ? "OutOfMemory" : "CrashLoop";
    default:
      return undefined;
  }
}

function refusalOf(deployment: Deployment | undefined): PoolTrouble | undefined {
  const failure = deployment?.status?.conditions?.find(
    ({ type, status }) => type === "ReplicaFailure" && status === "True",
  );
  if (failure === undefined) return undefined;
  const message = failure.message ?? "";
  return { reason: message.includes("quota") ? "QuotaExceeded" : "PodRefused", message };
}

const STORE_REASONS: Readonly<Record<string, ConditionReason>> = {
  REDIS_AUTH_FAILED: "RedisAuthFailed",
  REDIS_EVICTS: "RedisEvicts",
  REDIS_DURABILITY_NOT_KEPT: "DurabilityNotKept",
  REDIS_UNSUPPORTED: "RedisUnsupported",
};

/** The condition for an error of the session store. */
export function storeProblemOf(error: unknown): { reason: ConditionReason; message: string } {
  const reason = STORE_REASONS[codeOf(error) ?? ""] ?? "RedisUnreachable";
  return { reason, message: describeError(error) };
}
