import type { Sabotage } from "../sabotage.ts";

const common = {
  case: "T13",
  file: "deploy/admission/sandbox-pod-policy.yaml",
  test: "test/security/api/t13-sandbox-pods.test.ts",
};

export const sabotages: readonly Sabotage[] = [
  {
    ...common,
    defence: "Volumes of a sandbox pod are scratch space only",
    find: "object.spec.volumes.all(v, has(v.emptyDir))",
    replace: "object.spec.volumes.all(v, true)",
    name: "volume|Secret|token|host path|ConfigMap|claim",
  },
  {
    ...common,
    defence: "No variable of a sandbox pod is read from a Secret",
    find: "|| c.env.all(e, !has(e.valueFrom) || has(e.valueFrom.fieldRef)))",
    replace: "|| true)",
    name: "in the environment",
  },
  {
    ...common,
    defence: "No environment of a sandbox pod is filled from a Secret",
    find: "variables.containers.all(c, !has(c.envFrom) || size(c.envFrom) == 0)",
    replace: "true",
    name: "envFrom",
  },
  {
    ...common,
    defence: "Rules for containers hold for those that run first too",
    find: "object.spec.containers + (has(object.spec.initContainers) ? object.spec.initContainers : [])",
    replace: "object.spec.containers",
    name: "set-up container",
  },
  {
    ...common,
    defence: "A sandbox pod shares no namespace with its node",
    find: "!(has(object.spec.hostNetwork) && object.spec.hostNetwork)",
    replace: "true",
    name: "the host's network",
  },
  {
    ...common,
    defence: "Containers of a sandbox pod do not see each other's processes",
    find: "!(has(object.spec.shareProcessNamespace) && object.spec.shareProcessNamespace)",
    replace: "true",
    name: "a shared process namespace",
  },
  {
    ...common,
    defence: "A sandbox pod says that no token is to be mounted",
    find: "has(object.spec.automountServiceAccountToken)",
    replace: "!has(object.spec.automountServiceAccountToken) || true",
    name: "automounted|left to the default",
  },
  {
    ...common,
    defence: "The policy also looks at ephemeral containers",
    find: "resources: [pods, pods/ephemeralcontainers]",
    replace: "resources: [pods]",
    name: "ephemeral container",
  },
  {
    ...common,
    defence: "The policy also looks at changes of a pod that runs",
    find: "operations: [CREATE, UPDATE]",
    replace: "operations: [CREATE]",
    name: "removed nor changed|made a sandbox",
  },
  {
    ...common,
    defence: "The label that isolates a sandbox cannot be lost by way of the pod's status",
    find: "resources: [pods/status]",
    replace: "resources: [pods/log]",
    name: "the pod's status",
  },
];
