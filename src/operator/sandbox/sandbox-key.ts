import { ANNOTATIONS, LABELS } from "../../api/names.ts";
import type { SessionRef } from "../../sessions/session-log.ts";
import type { Pod } from "../kinds.ts";

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
  /** UID of the AgentSession. */
  session: (pod: Pod) => [pod.metadata.labels?.[LABELS.session] ?? ""],
  namespace: (pod: Pod) => [pod.metadata.namespace ?? ""],
} as const;

/** Undefined for a pod that carries the label and is not of our making. */
export function keyOfPod(pod: Pod): string | undefined {
  const { labels = {}, annotations = {}, namespace } = pod.metadata;
  const id = annotations[ANNOTATIONS.sessionId];
  const hand = annotations[LABELS.hand];
  const generation = Number(labels[LABELS.generation]);
  if (id === undefined || hand === undefined || namespace === undefined) return undefined;
  if (!Number.isSafeInteger(generation) || generation < 1) return undefined;
  return sandboxKey({ ref: { tenant: namespace, id }, hand, generation });
}
