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
 * The sandbox pod (docs/design/sandbox-pod.md, docs/design/security.md#pods). It runs code that a
 * model wrote, so it gets nothing: no token, no secret, no DNS, no service links, no privilege.
 * What it holds is what
 * `deploy/admission/sandbox-pod-policy.yaml` admits; a test applies one to the other.
 */

/**
 * The journal's for the daemon. For the tools' container another volume: it lies outside the roots of
 * the file tools, so that `rm -rf /workspace` does not erase git's way to the edge.
 */
const STATE_DIR = "/var/lib/drover";
const WORKSPACE_DIR = "/workspace";
const CONTROL_DIR = "/run/drover";
/** UID of the `drover-sandbox` image; an image built FROM it must keep it. */
export const SANDBOX_UID = 10_001;
/** No process of the tools' container has it: nothing there may signal or read the daemon. */
export const DAEMON_UID = 10_005;
export const SETUP_CONTAINER = "setup";
/** The runner and what it runs: all that is of the model. What the template says is meant for it. */
const SANDBOX_CONTAINER = "sandbox";
/** Takes the harness's calls, keeps the journal and runs nothing: docs/adr/0011. */
export const DAEMON_CONTAINER = "daemon";
/**
 * Programs that only root may read: Linux lets nobody trace a process of such a program, or read its
 * memory and environment, also not the code of the same user.
 */
const OUR_NODE = [
  "/opt/drover/bin/tini",
  "--",
  "/opt/drover/bin/node",
  "--disable-sigusr1",
] as const;
const PROGRAMS = "/opt/drover/daemon/dist/cmd";
/**
 * What the daemon needs, whatever the template gives the tools. It rests at half of the request; the
 * limit is for calls with inputs of many MiB.
 */
const DAEMON_RESOURCES = {
  requests: { cpu: "5m", memory: "64Mi", "ephemeral-storage": "192Mi" },
  limits: { memory: "192Mi", "ephemeral-storage": "192Mi" },
};
/** Time for the daemon to end running calls and sync its journal. */
const GRACE_SECONDS = 5;
/**
 * Ends when the daemon takes calls, or after half a minute, then without a failure: a hook that fails
 * has its container killed, and the probe says better what is wrong. The kubelet probes a container
 * only after its hook; one that is probed while it starts gets a Warning event each time.
 */
const UNTIL_READY = `until (exec 3<>/dev/tcp/127.0.0.1/${PORTS.sandbox} \
  && printf 'GET /healthz HTTP/1.0\\r\\n\\r\\n' >&3 \
  && read -r -t 2 _ status _ <&3 && [ "$status" = 200 ]) 2>/dev/null
do
  ((SECONDS < 30)) || exit 0
  sleep 0.1
done`;

/** What Pod Security `restricted` asks of each container, and a root file system nobody writes to. */
const restricted = () =>
  ({
    allowPrivilegeEscalation: false,
    readOnlyRootFilesystem: true,
    runAsNonRoot: true,
    capabilities: { drop: ["ALL"] },
    seccompProfile: { type: "RuntimeDefault" },
  }) satisfies V1SecurityContext;

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
  /** `hostUsers: false`; needs a runtime that supports it (docs/design/sandbox-pod.md). */
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
      containers: [toolsContainer(template), daemonContainer(template, options)],
      volumes: [
        { name: "workspace", emptyDir: { sizeLimit: template.workspaceSize } },
        { name: "tmp", emptyDir: { sizeLimit: template.workspaceSize } },
        { name: "run", emptyDir: { sizeLimit: "64Mi" } },
        { name: "state", emptyDir: { sizeLimit: "128Mi" } },
        { name: "control", emptyDir: { sizeLimit: "1Mi" } },
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

function toolsContainer(template: SandboxTemplateSnapshot): V1Container {
  return {
    name: SANDBOX_CONTAINER,
    ...recipe(template),
    command: [...OUR_NODE, `${PROGRAMS}/sandbox-runner.js`],
    env: [...toolsEnv(), ...ownEnv(), { name: SANDBOX_ENV.runnerDir, value: STATE_DIR }],
    volumeMounts: [
      ...toolsMounts(),
      { name: "run", mountPath: STATE_DIR },
      // To connect to the socket, not to put another one in its place.
      { name: "control", mountPath: CONTROL_DIR, readOnly: true },
    ],
  };
}

function daemonContainer(
  template: SandboxTemplateSnapshot,
  options: SandboxPodOptions,
): V1Container {
  return {
    name: DAEMON_CONTAINER,
    image: template.image,
    imagePullPolicy: template.imagePullPolicy,
    workingDir: "/",
    // Small young generations: there is one daemon for each sandbox, and it seldom has much to do.
    command: [...OUR_NODE, "--max-semi-space-size=2", `${PROGRAMS}/sandbox.js`],
    env: [
      ...ownEnv(),
      { name: SANDBOX_ENV.publicKeys, value: JSON.stringify(options.publicKeys) },
      { name: SANDBOX_ENV.port, value: String(PORTS.sandbox) },
      { name: SANDBOX_ENV.journal, value: STATE_DIR },
    ],
    ports: [{ name: "daemon", containerPort: PORTS.sandbox, protocol: "TCP" }],
    lifecycle: { postStart: { exec: { command: ["bash", "-p", "-c", UNTIL_READY] } } },
    readinessProbe: {
      httpGet: { path: "/healthz", port: PORTS.sandbox },
      periodSeconds: 1,
      timeoutSeconds: 2,
      // A busy sandbox is not an unready one: losing readiness means nothing to us, flapping would.
      failureThreshold: 10,
    },
    resources: DAEMON_RESOURCES,
    securityContext: { ...restricted(), runAsUser: DAEMON_UID, runAsGroup: DAEMON_UID },
    volumeMounts: [
      { name: "state", mountPath: STATE_DIR },
      { name: "control", mountPath: CONTROL_DIR },
    ],
  };
}

function setupContainer(template: SandboxTemplateSnapshot, script: string): V1Container {
  return {
    name: SETUP_CONTAINER,
    ...recipe(template),
    command: ["bash", "-eu", "-o", "pipefail", "-c", script],
    env: toolsEnv(),
    volumeMounts: toolsMounts(),
    // The last lines the script printed are the reason why it failed.
    terminationMessagePolicy: "FallbackToLogsOnError",
  };
}

/** What the containers that run the model's or the template's code share: the template's recipe. */
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
  };
}

function toolsEnv(): V1EnvVar[] {
  return [
    { name: "HOME", value: WORKSPACE_DIR },
    { name: SANDBOX_ENV.workspace, value: WORKSPACE_DIR },
  ];
}

/** Of both processes that are ours. */
function ownEnv(): V1EnvVar[] {
  return [
    {
      name: SANDBOX_ENV.sandboxId,
      valueFrom: { fieldRef: { apiVersion: "v1", fieldPath: "metadata.uid" } },
    },
    { name: SANDBOX_ENV.runnerSocket, value: `${CONTROL_DIR}/runner.sock` },
    // An image may set it for the tools; it could open the debugger of ours.
    { name: "NODE_OPTIONS", value: "" },
  ];
}

function toolsMounts(): V1VolumeMount[] {
  return [
    { name: "workspace", mountPath: WORKSPACE_DIR },
    { name: "tmp", mountPath: "/tmp" },
  ];
}
