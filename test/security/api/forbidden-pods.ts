import type { Pod } from "../../../src/operator/kinds.ts";

/** Sandbox pods as the operator never makes them, for T13. */

type Change = (pod: Pod) => void;

interface ForbiddenPod {
  name: string;
  change: Change;
  message: string;
}

const container = (pod: Pod) => {
  const first = pod.spec.containers[0];
  if (first === undefined) throw new Error("the pod has a container");
  return first;
};
const secure = (pod: Pod, change: Record<string, unknown>) =>
  Object.assign(container(pod).securityContext ?? {}, change);
/** A copy under another name. */
function renamed<T extends { name: string }>(original: T, name: string): T {
  return Object.assign(structuredClone(original), { name });
}

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

const pods: [string, string, Record<string, unknown>][] = [
  ["the node's name server", "dnsPolicy", { dnsPolicy: "Default", dnsConfig: undefined }],
  ["another name server", "dnsPolicy", { dnsConfig: { nameservers: ["8.8.8.8"] } }],
  ["host aliases", "hostAliases", { hostAliases: [{ ip: "10.0.0.1", hostnames: ["a"] }] }],
  ["pull secrets", "imagePullSecrets", { imagePullSecrets: [{ name: "x" }] }],
  ["a node of its choice", "nodeName", { nodeName: "master" }],
  ["a priority above others", "priority", { priorityClassName: "system-node-critical" }],
  ["a toleration of every taint", "taints", { tolerations: [{ operator: "Exists" }] }],
  ["the host's users", "hostUsers", { hostUsers: true }],
  ["another scheduler", "no other fields", { schedulerName: "mine" }],
  ["service links", "no other fields", { enableServiceLinks: true }],
  ["a host name", "no other fields", { hostname: "db", subdomain: "x" }],
  ["an affinity", "no other fields", { affinity: { podAffinity: {} } }],
  ["readiness gates", "no other fields", { readinessGates: [{ conditionType: "a.b/c" }] }],
];
const profiles: [string, string, Record<string, unknown>][] = [
  ["another process' user", "10001", { runAsUser: 10_004 }],
  ["the daemon's user for the tools", "10001", { runAsUser: 10_005 }],
  ["group 0", "10001", { runAsGroup: 0 }],
  ["supplementary group 0", "other groups", { supplementalGroups: [0] }],
  ["file system group 0", "other groups", { fsGroup: 0 }],
  ["AppArmor off", "AppArmor", { appArmorProfile: { type: "Unconfined" } }],
  ["a sysctl", "sysctls", { sysctls: [{ name: "kernel.shm_rmid_forced", value: "0" }] }],
  ["an SELinux type", "SELinux", { seLinuxOptions: { type: "spc_t" } }],
  [
    "a seccomp profile of the node",
    "RuntimeDefault",
    { seccompProfile: { type: "Localhost", localhostProfile: "x.json" } },
  ],
];
const hook = { httpGet: { host: "169.254.169.254", port: 80, path: "/" } };
const containers: [string, string, Record<string, unknown>][] = [
  ["a hook that the kubelet calls", "lifecycle", { lifecycle: { postStart: hook } }],
  ["a probe of another host", "probes", { readinessProbe: hook }],
  ["a probe that is a command", "probes", { livenessProbe: { exec: { command: ["x"] } } }],
  ["an image of its own", "one image", { image: "evil" }],
  ["a terminal", "no other fields", { stdin: true, tty: true }],
  ["a restart policy of its own", "no other fields", { restartPolicy: "Never" }],
];
const secured: [string, string, Record<string, unknown>][] = [
  ["AppArmor off for the tools", "AppArmor", { appArmorProfile: { type: "Unconfined" } }],
  ["an SELinux type for the tools", "SELinux", { seLinuxOptions: { type: "spc_t" } }],
  ["an option for Windows", "Windows", { windowsOptions: { runAsUserName: "x" } }],
  ["the daemon's user for its tools", "10001", { runAsUser: 10_005 }],
];
const named = (pod: Pod, name: string) => {
  const found = pod.spec.containers.find((one) => one.name === name);
  if (found === undefined) throw new Error(`the pod has the container ${name}`);
  return found;
};

/** What else a pod could be that the operator does not make; found by attack. */
const shapes: ForbiddenPod[] = [
  ...pods.map(([name, message, part]) => ({
    name,
    message,
    change: (pod: Pod) => void Object.assign(pod.spec, part),
  })),
  ...profiles.map(([name, message, part]) => ({
    name,
    message,
    change: (pod: Pod) => void Object.assign(pod.spec.securityContext ?? {}, part),
  })),
  ...containers.map(([name, message, part]) => ({
    name,
    message,
    change: (pod: Pod) => void Object.assign(container(pod), part),
  })),
  ...secured.map(([name, message, part]) => ({
    name,
    message,
    change: (pod: Pod) => void secure(pod, part),
  })),
  {
    name: "a second container of another's",
    message: "must have the containers",
    change: (pod) => void pod.spec.containers.push(renamed(container(pod), "injected")),
  },
  {
    name: "no daemon",
    message: "must have the containers",
    change: (pod) => void pod.spec.containers.pop(),
  },
  {
    name: "a set-up container that goes on",
    message: "must not restart",
    change: (pod) => void Object.assign(setup(pod), { restartPolicy: "Always" }),
  },
  {
    name: "a second set-up container",
    message: "must have the containers",
    change: (pod) => void pod.spec.initContainers?.push(renamed(setup(pod), "more")),
  },
  {
    name: "a daemon that runs as the tools",
    message: "its daemon as 10005",
    change: (pod) =>
      void Object.assign(named(pod, "daemon").securityContext ?? {}, { runAsUser: 10_001 }),
  },
  {
    name: "a probe of the daemon at another host",
    message: "readiness probe",
    change: (pod) => {
      named(pod, "daemon").readinessProbe = {
        httpGet: { host: "10.0.0.1", port: 7080, path: "/healthz" },
      };
    },
  },
  {
    name: "a hook of the daemon that asks another host",
    message: "the one hook",
    change: (pod) => {
      named(pod, "daemon").lifecycle = { postStart: hook };
    },
  },
  {
    name: "a hook at the end of the daemon",
    message: "the one hook",
    change: (pod) => {
      named(pod, "daemon").lifecycle = { preStop: { exec: { command: ["x"] } } };
    },
  },
  {
    name: "a command that the kubelet runs beside the tools",
    message: "lifecycle",
    change: (pod) => {
      container(pod).lifecycle = { postStart: { exec: { command: ["x"] } } };
    },
  },
  {
    name: "the journal in the tools' container",
    message: "must not mount",
    change: (pod) => void container(pod).volumeMounts?.push({ name: "state", mountPath: "/state" }),
  },
  {
    name: "the daemon's socket to write for the tools",
    message: "nor write",
    change: (pod) => {
      for (const mount of container(pod).volumeMounts ?? []) delete mount.readOnly;
    },
  },
  {
    name: "a variable from a resource field",
    message: "plain values",
    change: (pod) =>
      void container(pod).env?.push({
        name: "X",
        valueFrom: { resourceFieldRef: { resource: "limits.memory" } },
      }),
  },
  {
    name: "another field of the pod in a variable",
    message: "plain values",
    change: (pod) =>
      void container(pod).env?.push({
        name: "X",
        valueFrom: { fieldRef: { fieldPath: "status.hostIP" } },
      }),
  },
  {
    name: "the labels of a harness pod",
    message: "none of a harness",
    change: (pod) => {
      pod.metadata.labels = { ...pod.metadata.labels, "app.kubernetes.io/component": "harness" };
    },
  },
];

/** Pods that the policy must refuse: what each has, how it is made, and a word of the reason. */
export const forbidden: ForbiddenPod[] = [
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
    name: "envFrom in the set-up container",
    change: (pod) => {
      setup(pod).envFrom = [{ configMapRef: { name: "x" } }];
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
  ...shapes,
  {
    name: "a claim of a device",
    change: (pod) => {
      pod.spec.resourceClaims = [{ name: "device", resourceClaimName: "x" }];
    },
    message: "resourceClaims",
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
