import type {
  V1Container,
  V1EnvVar,
  V1SecurityContext,
  V1VolumeMount,
} from "@kubernetes/client-node";
import {
  ANNOTATIONS,
  API_VERSION,
  LABELS,
  PORTS,
  SANDBOX_SERVICE_ACCOUNT,
} from "../../api/names.ts";
import type { OwnerReference } from "../../kube/objects.ts";
import { SANDBOX_ENV } from "../../protocol/sandbox-api.ts";
import type { SessionSnapshot } from "../../protocol/snapshot.ts";
import type { Jwks } from "../../protocol/tokens.ts";
import type { Pod } from "../kinds.ts";
import { COMPONENTS, childLabels, labelValue, sandboxPodName } from "../names.ts";

/**
 * The sandbox pod (design: architecture §3.1, security §14). It runs code that a model wrote, so it
 * gets nothing: no token, no secret, no DNS, no service links, no privilege. What it holds is what
 * `deploy/admission/sandbox-pod-policy.yaml` admits; a test applies one to the other.
 */

/** Outside the roots of the file tools, so that `rm -rf /workspace` does not erase the journal. */
const STATE_DIR = "/var/lib/drover";
const WORKSPACE_DIR = "/workspace";
/** UID of the `drover-sandbox` image; an image built FROM it must keep it. */
export const SANDBOX_UID = 10_001;
export const SETUP_CONTAINER = "setup";
export const SANDBOX_CONTAINER = "sandbox";
/** Time for the daemon to end running calls and sync its journal. */
const GRACE_SECONDS = 5;

export interface SandboxIdentity {
  tenant: string;
  sessionId: string;
  hand: string;
  generation: number;
  /** Id of the log event that asked. */
  requestId: string;
}

export interface SandboxPodOptions {
  publicKeys: Jwks;
  /** `hostUsers: false`; needs a runtime that supports it (architecture §3.1). */
  userNamespaces: boolean;
}

export type SandboxTemplateSnapshot = NonNullable<SessionSnapshot["template"]>;

/** `object` and `template` of the snapshot must be there: the caller checks. */
export function buildSandboxPod(
  identity: SandboxIdentity,
  object: { name: string; uid: string },
  template: SandboxTemplateSnapshot,
  options: SandboxPodOptions,
): Pod {
  const container = sandboxContainer(template, options);
  return {
    apiVersion: "v1",
    kind: "Pod",
    metadata: {
      name: sandboxPodName({ ...identity, objectName: object.name }),
      namespace: identity.tenant,
      labels: podLabels(identity, object, template),
      annotations: {
        [ANNOTATIONS.sessionId]: identity.sessionId,
        [ANNOTATIONS.requestId]: identity.requestId,
        // In full: a label value may have to be a shortened form.
        [LABELS.hand]: identity.hand,
        [ANNOTATIONS.templateRevision]: template.revision,
      },
      ownerReferences: [sessionOwner(object)],
    },
    spec: {
      restartPolicy: "Always",
      serviceAccountName: SANDBOX_SERVICE_ACCOUNT,
      automountServiceAccountToken: false,
      enableServiceLinks: false,
      shareProcessNamespace: false,
      ...(options.userNamespaces ? { hostUsers: false } : {}),
      ...(template.runtimeClassName === undefined
        ? {}
        : { runtimeClassName: template.runtimeClassName }),
      terminationGracePeriodSeconds: GRACE_SECONDS,
      // Refused at once by the loopback address, instead of a channel that a policy must filter.
      dnsPolicy: "None",
      dnsConfig: {
        nameservers: ["127.0.0.1"],
        options: [
          { name: "timeout", value: "1" },
          { name: "attempts", value: "1" },
        ],
      },
      securityContext: {
        runAsNonRoot: true,
        runAsUser: SANDBOX_UID,
        runAsGroup: SANDBOX_UID,
        seccompProfile: { type: "RuntimeDefault" },
      },
      ...(template.setupScript === undefined
        ? {}
        : { initContainers: [setupContainer(template, template.setupScript)] }),
      containers: [container],
      volumes: [
        { name: "workspace", emptyDir: { sizeLimit: template.workspaceSize } },
        { name: "tmp", emptyDir: { sizeLimit: template.workspaceSize } },
        { name: "state", emptyDir: { sizeLimit: "128Mi" } },
      ],
    },
  };
}

function podLabels(
  identity: SandboxIdentity,
  object: { name: string; uid: string },
  template: SandboxTemplateSnapshot,
): Record<string, string> {
  return {
    ...childLabels(COMPONENTS.sandbox, object.name),
    [LABELS.sandbox]: "true",
    [LABELS.session]: object.uid,
    [LABELS.template]: labelValue(template.name),
    [LABELS.hand]: labelValue(identity.hand),
    [LABELS.generation]: String(identity.generation),
  };
}

function sessionOwner(object: { name: string; uid: string }): OwnerReference {
  return {
    apiVersion: API_VERSION,
    kind: "AgentSession",
    name: object.name,
    uid: object.uid,
    controller: true,
    blockOwnerDeletion: true,
  };
}

function sandboxContainer(
  template: SandboxTemplateSnapshot,
  options: SandboxPodOptions,
): V1Container {
  return {
    name: SANDBOX_CONTAINER,
    ...recipe(template),
    env: [
      ...commonEnv(),
      { name: SANDBOX_ENV.publicKeys, value: JSON.stringify(options.publicKeys) },
      {
        name: SANDBOX_ENV.sandboxId,
        valueFrom: { fieldRef: { apiVersion: "v1", fieldPath: "metadata.uid" } },
      },
      { name: SANDBOX_ENV.port, value: String(PORTS.sandbox) },
    ],
    ports: [{ name: "daemon", containerPort: PORTS.sandbox, protocol: "TCP" }],
    readinessProbe: {
      httpGet: { path: "/healthz", port: PORTS.sandbox },
      periodSeconds: 1,
      timeoutSeconds: 2,
      // A busy sandbox is not an unready one: losing readiness means nothing to us, flapping would.
      failureThreshold: 10,
    },
  };
}

function setupContainer(template: SandboxTemplateSnapshot, script: string): V1Container {
  return {
    name: SETUP_CONTAINER,
    ...recipe(template),
    command: ["bash", "-eu", "-o", "pipefail", "-c", script],
    env: commonEnv(),
    // The last lines the script printed are the reason why it failed.
    terminationMessagePolicy: "FallbackToLogsOnError",
  };
}

/** What both containers share: image, limits, volumes and the restricted profile. */
function recipe(template: SandboxTemplateSnapshot): Omit<V1Container, "name"> {
  const { cpu, memory, ephemeralStorage } = template.resources;
  return {
    image: template.image,
    imagePullPolicy: template.imagePullPolicy,
    workingDir: WORKSPACE_DIR,
    resources: {
      requests: { cpu, memory, "ephemeral-storage": ephemeralStorage },
      limits: { memory, "ephemeral-storage": ephemeralStorage },
    },
    securityContext: restricted(),
    volumeMounts: volumeMounts(),
  };
}

function commonEnv(): V1EnvVar[] {
  return [
    { name: "HOME", value: WORKSPACE_DIR },
    { name: SANDBOX_ENV.workspace, value: WORKSPACE_DIR },
    { name: SANDBOX_ENV.journal, value: STATE_DIR },
  ];
}

function volumeMounts(): V1VolumeMount[] {
  return [
    { name: "workspace", mountPath: WORKSPACE_DIR },
    { name: "tmp", mountPath: "/tmp" },
    { name: "state", mountPath: STATE_DIR },
  ];
}

function restricted(): V1SecurityContext {
  return {
    allowPrivilegeEscalation: false,
    readOnlyRootFilesystem: true,
    runAsNonRoot: true,
    capabilities: { drop: ["ALL"] },
    seccompProfile: { type: "RuntimeDefault" },
  };
}
