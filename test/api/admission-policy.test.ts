import { readFile } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, it } from "@jest/globals";
import type { Pod } from "../../src/operator/kinds.ts";
import { buildSandboxPod } from "../../src/operator/sandbox/pod.ts";
import { aSnapshot, aTemplateSnapshot } from "../builders/snapshot.ts";
import { type ApiServer, startApiServer } from "../cluster/api-server.ts";

/**
 * The policy file on a real API server. Each forbidden pod is first accepted without the policy (so
 * that nothing else is what refuses it), then refused with it.
 */

const POLICY = "deploy/admission/sandbox-pod-policy.yaml";
const ours = "ours"; // Pod Security: restricted
const open = "open"; // Pod Security: privileged, so that only the policy can refuse

let api: ApiServer;

beforeAll(async () => {
  api = await startApiServer();
  for (const [name, level] of [
    [ours, "restricted"],
    [open, "privileged"],
  ]) {
    // oxlint-disable-next-line no-await-in-loop -- two namespaces, one after the other
    await apply({
      apiVersion: "v1",
      kind: "Namespace",
      metadata: { name, labels: { "pod-security.kubernetes.io/enforce": level } },
    });
  }
}, 120_000);

afterAll(async () => {
  await api?.stop();
});

function aPod(namespace: string, name = "a-sandbox"): Pod {
  const snapshot = aSnapshot();
  const pod = buildSandboxPod(
    {
      tenant: namespace,
      sessionId: snapshot.sessionId,
      hand: "sandbox",
      generation: 1,
      requestId: "sevt_1",
    },
    { name: "hello", uid: "7f0f7a6e-0000-4000-8000-000000000001" },
    aTemplateSnapshot({ setupScript: "echo hello" }),
    { publicKeys: { keys: [] }, userNamespaces: false },
  );
  pod.metadata.name = name;
  return pod;
}

type Change = (pod: Pod) => void;

const container = (pod: Pod) => {
  const first = pod.spec.containers[0];
  if (first === undefined) throw new Error("the pod has a container");
  return first;
};
const secure = (pod: Pod, change: Record<string, unknown>) =>
  Object.assign(container(pod).securityContext ?? {}, change);
const setup = (pod: Pod) => {
  const first = pod.spec.initContainers?.[0];
  if (first === undefined) throw new Error("the pod has a set-up container");
  return first;
};
const withVolume = (volume: Record<string, unknown>): Change => {
  return (pod) => pod.spec.volumes?.push({ name: "extra", ...volume });
};
const secretEnv = {
  name: "KEY",
  valueFrom: { secretKeyRef: { name: "model-key", key: "api-key", optional: true } },
};

const forbidden: { name: string; change: Change; message: string }[] = [
  {
    name: "a Secret volume",
    change: withVolume({ secret: { secretName: "x" } }),
    message: "emptyDir",
  },
  {
    name: "a projected Secret",
    change: withVolume({ projected: { sources: [{ secret: { name: "x" } }] } }),
    message: "emptyDir",
  },
  {
    name: "a projected service account token",
    change: withVolume({ projected: { sources: [{ serviceAccountToken: { path: "token" } }] } }),
    message: "emptyDir",
  },
  {
    name: "a CSI volume, such as a secrets store",
    change: withVolume({ csi: { driver: "secrets-store.csi.k8s.io", readOnly: true } }),
    message: "emptyDir",
  },
  {
    name: "a ConfigMap volume",
    change: withVolume({ configMap: { name: "x" } }),
    message: "emptyDir",
  },
  { name: "a host path", change: withVolume({ hostPath: { path: "/" } }), message: "emptyDir" },
  {
    name: "a persistent volume claim",
    change: withVolume({ persistentVolumeClaim: { claimName: "x" } }),
    message: "emptyDir",
  },
  {
    name: "a Secret in the environment",
    change: (pod) => container(pod).env?.push(secretEnv),
    message: "valueFrom.fieldRef",
  },
  {
    name: "a Secret in the set-up container's environment",
    change: (pod) => setup(pod).env?.push(secretEnv),
    message: "valueFrom.fieldRef",
  },
  {
    name: "envFrom",
    change: (pod) => {
      container(pod).envFrom = [{ secretRef: { name: "x" } }];
    },
    message: "envFrom",
  },
  {
    name: "the host's network",
    change: (pod) => {
      pod.spec.hostNetwork = true;
    },
    message: "hostNetwork",
  },
  {
    name: "the host's processes",
    change: (pod) => {
      pod.spec.hostPID = true;
    },
    message: "hostNetwork",
  },
  {
    name: "the host's IPC",
    change: (pod) => {
      pod.spec.hostIPC = true;
    },
    message: "hostNetwork",
  },
  {
    name: "a shared process namespace",
    change: (pod) => {
      pod.spec.shareProcessNamespace = true;
    },
    message: "shareProcessNamespace",
  },
  {
    name: "an automounted token",
    change: (pod) => {
      pod.spec.automountServiceAccountToken = true;
    },
    message: "automountServiceAccountToken",
  },
  {
    name: "a token left to the default",
    change: (pod) => {
      delete pod.spec.automountServiceAccountToken;
    },
    message: "automountServiceAccountToken",
  },
  {
    name: "another service account",
    change: (pod) => {
      pod.spec.serviceAccountName = "default";
    },
    message: "serviceAccountName",
  },
  {
    name: "a privileged container",
    change: (pod) => {
      container(pod).securityContext = { privileged: true };
    },
    message: "allowPrivilegeEscalation",
  },
  {
    name: "an added capability",
    change: (pod) => {
      secure(pod, { capabilities: { drop: ["ALL"], add: ["SYS_ADMIN"] } });
    },
    message: "capabilities",
  },
  {
    name: "a writable root file system",
    change: (pod) => {
      secure(pod, { readOnlyRootFilesystem: false });
    },
    message: "readOnlyRootFilesystem",
  },
  {
    name: "root",
    change: (pod) => {
      secure(pod, { runAsUser: 0 });
    },
    message: "non-root",
  },
  {
    name: "no seccomp profile",
    change: (pod) => {
      secure(pod, { seccompProfile: { type: "Unconfined" } });
    },
    message: "seccomp",
  },
  {
    name: "a host port",
    change: (pod) => {
      container(pod).ports = [{ containerPort: 7080, hostPort: 7080 }];
    },
    message: "hostPort",
  },
  {
    name: "a sandbox label with another value",
    change: (pod) => {
      pod.metadata.labels = { ...pod.metadata.labels, "drover.dev/sandbox": "no" };
    },
    message: "drover.dev/sandbox",
  },
];

const variants = forbidden.map((variant) => {
  const pod = aPod(open);
  variant.change(pod);
  return { ...variant, pod };
});

async function apply(object: unknown): Promise<void> {
  const result = await api.kubectl(["apply", "-f", "-"], JSON.stringify(object));
  if (result.code !== 0) throw new Error(result.stderr);
}

function tryPod(pod: Pod) {
  return api.kubectl(["create", "--dry-run=server", "-f", "-"], JSON.stringify(pod));
}

describe("without the policy", () => {
  it.each(variants)("a pod with $name is accepted, so nothing else refuses it", async ({ pod }) => {
    const result = await tryPod(pod);

    expect(result.stderr).toBe("");
    expect(result.code).toBe(0);
  });
});

describe("with the policy", () => {
  beforeAll(async () => {
    const created = await api.kubectl(["create", "-f", "-"], await readFile(POLICY, "utf8"));
    if (created.code !== 0) throw new Error(created.stderr);
    const probe = aPod(open);
    probe.spec.hostNetwork = true;
    // The API server takes a moment to compile a new policy.
    for (let i = 0; i < 200; i += 1) {
      // oxlint-disable-next-line no-await-in-loop -- a poll
      const result = await tryPod(probe);
      if (result.code !== 0) return;
      // oxlint-disable-next-line no-await-in-loop -- a poll
      await sleep(100);
    }
    throw new Error("the policy was never enforced");
  }, 60_000);

  it.each(variants)("a pod with $name is refused, and the message says why", async (variant) => {
    const result = await tryPod(variant.pod);

    expect(result.code).not.toBe(0);
    expect(result.stderr).toContain("drover-sandbox-pods");
    expect(result.stderr).toContain(variant.message);
  });

  it("our own pod is accepted, also by Pod Security restricted, without a warning", async () => {
    const result = await tryPod(aPod(ours));

    expect(result.stderr).toBe("");
    expect(result.code).toBe(0);
  });

  it("a pod without the label is none of its business", async () => {
    const pod = aPod(open);
    pod.metadata.labels = {};
    pod.spec.hostNetwork = true;

    expect((await tryPod(pod)).code).toBe(0);
  });

  it("the label can be neither removed nor changed later, and other labels can", async () => {
    await apply(aPod(ours, "kept"));
    const label = (text: string) =>
      api.kubectl(["-n", ours, "label", "--overwrite", "pod", "kept", text]);

    const removed = await label("drover.dev/sandbox-");
    const changed = await label("drover.dev/sandbox=false");
    const other = await label("team=blue");

    expect(removed.stderr).toContain("isolation policies select by it");
    expect(changed.stderr).toContain("isolation policies select by it");
    expect(other.code).toBe(0);
  });

  it("no ephemeral container can be added to a running sandbox", async () => {
    await apply(aPod(ours, "debugged"));

    const result = await api.kubectl([
      "-n",
      ours,
      "debug",
      "debugged",
      "--image=busybox",
      "--target=sandbox",
      "--profile=restricted",
      "--",
      "sh",
    ]);

    expect(result.stderr).toContain("ephemeral containers must not be added");
  });

  it("an unlabelled pod that runs already cannot be made a sandbox with what it has", async () => {
    const pod = aPod(open, "smuggled");
    pod.metadata.labels = {};
    pod.spec.hostNetwork = true;
    await apply(pod);

    const result = await api.kubectl([
      "-n",
      open,
      "label",
      "pod",
      "smuggled",
      "drover.dev/sandbox=true",
    ]);

    expect(result.stderr).toContain("hostNetwork");
  });
});
