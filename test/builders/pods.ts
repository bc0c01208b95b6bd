import type { ContainerStatus, Pod, PodStatus } from "../../src/operator/kinds.ts";
import { buildSandboxPod, type SandboxTemplateSnapshot } from "../../src/operator/sandbox/pod.ts";
import { aSnapshot, aTemplateSnapshot } from "./snapshot.ts";

/** A sandbox pod as the API server would have it, with this status. */
export function aSandboxPod(
  status: PodStatus = {},
  template: Partial<SandboxTemplateSnapshot> = {},
): Pod {
  const { sessionId, tenant, object } = aSnapshot();
  if (object === undefined) throw new Error("aSnapshot has an object");
  const identity = { tenant, sessionId, hand: "sandbox", generation: 1, requestId: "sevt_ask" };
  const pod = buildSandboxPod(identity, object, aTemplateSnapshot(template), {
    publicKeys: { keys: [] },
    userNamespaces: false,
  });
  pod.metadata.uid = "pod-uid-1";
  pod.metadata.creationTimestamp = "2026-01-01T00:00:00Z";
  return { ...pod, status };
}

/** The status of one container; running and ready unless the test says otherwise. */
export function aContainer(changes: Partial<ContainerStatus> = {}): ContainerStatus {
  return { name: "sandbox", ready: true, restartCount: 0, state: { running: {} }, ...changes };
}
