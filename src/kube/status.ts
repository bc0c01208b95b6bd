import { isDeepStrictEqual } from "node:util";
import type { KubeClient, PatchStatusOptions } from "./client.ts";
import type { KubeObject, ResourceType } from "./objects.ts";

/** `metav1.Condition`. */
export interface Condition {
  type: string;
  status: ConditionStatus;
  reason: string;
  message: string;
  observedGeneration?: number;
  /** RFC 3339, whole seconds. */
  lastTransitionTime: string;
}

export type ConditionStatus = "True" | "False" | "Unknown";

/** What a pass has to say; times and generations are added by `mergeConditions`. */
export type WantedCondition = Pick<Condition, "type" | "status" | "reason" | "message">;

/**
 * The conditions to store: each wanted one with this generation, `lastTransitionTime` moved only
 * when its status changes; conditions of other types stay as they are. Order is stable.
 */
export function mergeConditions(
  previous: readonly Condition[] | undefined,
  wanted: readonly WantedCondition[],
  at: { generation: number | undefined; nowMs: number },
): Condition[] {
  const merged = new Map((previous ?? []).map((condition) => [condition.type, condition]));
  for (const condition of wanted) {
    const before = merged.get(condition.type);
    const unmoved = before !== undefined && before.status === condition.status;
    merged.set(condition.type, {
      type: condition.type,
      status: condition.status,
      reason: condition.reason,
      message: condition.message,
      ...(at.generation === undefined ? {} : { observedGeneration: at.generation }),
      lastTransitionTime: unmoved ? before.lastTransitionTime : rfc3339(at.nowMs),
    });
  }
  return [...merged.values()];
}

export function findCondition(
  conditions: readonly Condition[] | undefined,
  type: string,
): Condition | undefined {
  return conditions?.find((condition) => condition.type === type);
}

/** Whole seconds, as the API server writes `metav1.Time`. */
export function rfc3339(epochMs: number): string {
  return `${new Date(epochMs).toISOString().slice(0, 19)}Z`;
}

/** Microseconds, as the API server wants `metav1.MicroTime`. */
export function rfc3339Micro(epochMs: number): string {
  return `${new Date(epochMs).toISOString().slice(0, 23)}000Z`;
}

/**
 * The JSON merge patch that turns `previous` into `next`, or undefined when they are equal. Lists
 * are replaced whole; a field that `next` lacks, or has as undefined, is removed by `null`.
 */
export function mergePatch(
  previous: Record<string, unknown>,
  next: Record<string, unknown>,
): Record<string, unknown> | undefined {
  const patch: Record<string, unknown> = {};
  for (const [key, value] of Object.entries(next)) {
    const before = previous[key];
    if (value === undefined) {
      if (before !== undefined) patch[key] = null;
    } else if (isPlainObject(value) && isPlainObject(before)) {
      const inner = mergePatch(before, value);
      if (inner !== undefined) patch[key] = inner;
    } else if (!isDeepStrictEqual(before, value)) {
      patch[key] = value;
    }
  }
  for (const key of Object.keys(previous)) {
    if (!(key in next)) patch[key] = null;
  }
  return Object.keys(patch).length === 0 ? undefined : patch;
}

export interface WithStatus extends KubeObject {
  status?: object;
}

/**
 * The one status write of a pass: patches the difference between `object.status` (as read from a
 * cache) and `next`, and nothing when there is none. When the cache was behind, the write that it
 * has not seen wakes the controller again, and that pass corrects the difference.
 * @returns whether something was written
 */
export async function writeStatus<T extends WithStatus>(
  client: Pick<KubeClient, "patchStatus">,
  type: ResourceType<T>,
  object: Pick<WithStatus, "metadata" | "status">,
  next: object,
  options?: PatchStatusOptions,
): Promise<boolean> {
  // Through JSON, so that a key with an undefined value equals a missing one at any depth.
  const wanted: unknown = JSON.parse(JSON.stringify(next));
  const patch = mergePatch({ ...object.status }, isPlainObject(wanted) ? wanted : {});
  if (patch === undefined) return false;
  await client.patchStatus(type, object.metadata, patch, options);
  return true;
}

function isPlainObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
