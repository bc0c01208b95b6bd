import { ANNOTATIONS, LABELS } from "../../api/names.ts";
import { apiVersionOf, type KubeObject, type OwnerReference } from "../../kube/objects.ts";
import { controllerOf } from "../../kube/ownership.ts";
import { isDerivedFrom } from "../../sessions/ids.ts";
import type { SessionRef } from "../../sessions/session-log.ts";
import { agentSessions, type Pod } from "../kinds.ts";

/** One generation of one hand of one session: what this controller's queue holds. */
export interface Sandbox {
  ref: SessionRef;
  hand: string;
  generation: number;
}

/** A hand is named by the harness: it may hold anything. */
export function sandboxKey({ ref, hand, generation }: Sandbox): string {
  return `${ref.tenant}/${ref.id}/${encodeURIComponent(hand)}/${generation}`;
}

export function sandboxOf(key: string): Sandbox {
  const [tenant = "", id = "", hand = "", generation = "0"] = key.split("/");
  return { ref: { tenant, id }, hand: decodeURIComponent(hand), generation: Number(generation) };
}

/** Index functions of the cache of sandbox pods. */
export const podIndexes = {
  sandbox: (pod: Pod) => {
    const key = keyOfPod(pod);
    return key === undefined ? [] : [key];
  },
  /** UID of the AgentSession. A label can be copied: only who is named as owner may delete the pod. */
  session: (pod: Pod) => {
    const owner = sessionOwnerOf(pod);
    return owner === undefined ? [] : [owner.uid];
  },
  namespace: (pod: Pod) => [pod.metadata.namespace ?? ""],
} as const;

/**
 * Undefined for a pod that carries the label and is not of our making: one that no AgentSession
 * owns, or another than the one whose session it names.
 */
export function keyOfPod(pod: Pod): string | undefined {
  const { labels = {}, annotations = {}, namespace } = pod.metadata;
  const id = annotations[ANNOTATIONS.sessionId];
  const hand = annotations[LABELS.hand];
  const generation = Number(labels[LABELS.generation]);
  if (id === undefined || hand === undefined || namespace === undefined) return undefined;
  const owner = sessionOwnerOf(pod);
  if (owner === undefined || !isDerivedFrom(id, owner.uid)) return undefined;
  if (!Number.isSafeInteger(generation) || generation < 1) return undefined;
  return sandboxKey({ ref: { tenant: namespace, id }, hand, generation });
}

/** The AgentSession that owns the pod, so that the pod goes with it; undefined when none does. */
export function sessionOwnerOf(pod: Pick<KubeObject, "metadata">): OwnerReference | undefined {
  const owner = controllerOf(pod);
  const isSession =
    owner?.kind === agentSessions.kind && owner.apiVersion === apiVersionOf(agentSessions);
  return isSession ? owner : undefined;
}
