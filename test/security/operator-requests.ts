import { buildEdgeDeployment } from "../../src/operator/edge/resources.ts";
import {
  buildDeployment,
  buildServiceAccount as poolAccount,
} from "../../src/operator/harness-pool/resources.ts";
import type { Deployment, Pod } from "../../src/operator/kinds.ts";
import {
  buildNetworkPolicy,
  buildServiceAccount as sandboxAccount,
} from "../../src/operator/namespace-isolation/resources.ts";
import { anInstall } from "../builders/install.ts";
import { aPool } from "../builders/kinds.ts";
import { aSandboxPod } from "../builders/pods.ts";
import type { AdmissionRequest } from "./admission-policy.ts";

/** T76: what the operator's account asks of the API server: its own work, and what a thief would ask. */

export const OPERATOR = "system:serviceaccount:drover:drover-operator";
export const TENANT = "team-a";
const HOME = "drover";

export type OperatorRequest = Pick<AdmissionRequest, "resource" | "namespace"> & {
  name: string;
  object: object;
};

const edge = { replicas: 2, inClusterServers: [], resources: { cpu: "50m", memory: "256Mi" } };
const install = anInstall({ image: "drover:0.1.0", edge });

function aDeployment(model: object = {}): Deployment {
  const { spec } = aPool({ model });
  return buildDeployment({ name: "default", code: "pool" }, spec, install);
}

function aPod(): Pod {
  const made = aSandboxPod();
  return { ...made, metadata: { ...made.metadata, name: "made-by-the-operator" } };
}

const policyOf = (egress: boolean) =>
  buildNetworkPolicy(TENANT, { installNamespace: HOME, edge: egress });

const deployments = { resource: "apps/deployments", namespace: HOME };
const pods = { resource: "/pods", namespace: TENANT };
const accounts = { resource: "/serviceaccounts", namespace: TENANT };
const policies = { resource: "networking.k8s.io/networkpolicies", namespace: TENANT };

/** The operator's own work. */
export const ownWork: readonly OperatorRequest[] = [
  { name: "the Deployment of a pool", ...deployments, object: aDeployment() },
  {
    name: "the Deployment of a pool with a model key",
    ...deployments,
    object: aDeployment({ apiKeySecret: { name: "model-key" } }),
  },
  { name: "the edge", ...deployments, object: buildEdgeDeployment(install, edge) },
  { name: "a sandbox", ...pods, object: aPod() },
  {
    name: "the account of a pool",
    ...accounts,
    namespace: HOME,
    object: poolAccount("default", HOME),
  },
  { name: "the account of sandboxes", ...accounts, object: sandboxAccount(TENANT) },
  { name: "the isolation of sandboxes", ...policies, object: policyOf(true) },
  { name: "their isolation without an edge", ...policies, object: policyOf(false) },
];

export type Theft = OperatorRequest & { message: string };

function pod(name: string, message: string, change: (made: Pod) => void): Theft {
  const object = aPod();
  change(object);
  return { name, message, ...pods, object };
}

type PodSpec = Deployment["spec"]["template"]["spec"];

function pool(name: string, message: string, change: (spec: PodSpec, whole: Deployment) => void) {
  const object = aDeployment();
  change(object.spec.template.spec, object);
  return { name: `a pool ${name}`, message, ...deployments, object };
}

const first = <T>(list: readonly T[] | undefined): T => {
  const [found] = list ?? [];
  if (found === undefined) throw new Error("the list is empty");
  return found;
};
const harness = (spec: PodSpec) => first(spec.containers);
const proxy = (spec: PodSpec) => first(spec.initContainers);

function network(name: string, change: object, message: string): Theft {
  const object = policyOf(true);
  Object.assign(object.spec, change);
  return { name: `a NetworkPolicy ${name}`, message, ...policies, object };
}

/** The one does not go without the other. */
const PRIVILEGED = { privileged: true, allowPrivilegeEscalation: true };
const secretEnv = { name: "X", valueFrom: { secretKeyRef: { name: "any", key: "k" } } };

/** What whoever takes the operator over would rather make. */
export const thefts: readonly Theft[] = [
  pod("a pod without the sandbox label", "with the label", ({ metadata }) => {
    delete metadata.labels?.["drover.dev/sandbox"];
  }),
  pod("a pod that no AgentSession owns", "that an AgentSession owns", ({ metadata }) => {
    metadata.ownerReferences = [];
  }),
  pod("a pod with a Secret", "on scratch volumes", ({ spec }) => {
    spec.volumes?.push({ name: "x", secret: { secretName: "any" } });
  }),
  pod("a pod with a host path", "on scratch volumes", ({ spec }) => {
    spec.volumes?.push({ name: "x", hostPath: { path: "/" } });
  }),
  pod("a pod under another account", "runs as `drover-sandbox`", ({ spec }) => {
    spec.serviceAccountName = "cluster-admin";
  }),
  pod("a pod on the node's network", "apart from its node", ({ spec }) => {
    spec.hostNetwork = true;
  }),
  pod("a privileged pod", "apart from its node", ({ spec }) => {
    Object.assign(first(spec.containers).securityContext ?? {}, PRIVILEGED);
  }),
  pool("under another name", "of pools and of the edge only", (_, { metadata }) => {
    metadata.name = "anything";
  }),
  pool("under the operator's account", "under the service account of a pool", (spec) => {
    spec.serviceAccountName = "drover-operator";
  }),
  pool("with its account's token", "not mounted by itself", (spec) => {
    spec.automountServiceAccountToken = true;
  }),
  pool("on the node's network", "shares anything with its node", (spec) => {
    spec.hostNetwork = true;
  }),
  pool("among the node's processes", "shares anything with its node", (spec) => {
    spec.hostPID = true;
  }),
  pool("on a node of its choice", "nor names one", (spec) => {
    spec.nodeName = "control-plane";
  }),
  pool("with a host path", "host paths and all others", (spec) => {
    spec.volumes?.push({ name: "x", hostPath: { path: "/" } });
  }),
  pool("with any ConfigMap", "host paths and all others", (spec) => {
    const sources = [{ configMap: { name: "any" } }];
    spec.volumes?.push({ name: "vault-token", projected: { sources } });
  }),
  pool("with any Secret", "and no other", (spec) => {
    spec.volumes?.push({ name: "x", secret: { secretName: "any" } });
  }),
  pool("with any Secret in place of Redis' password", "and no other", (spec) => {
    spec.volumes?.push({ name: "redis-harness", secret: { secretName: "any" } });
  }),
  pool("with the issuer's key for a model key", "and no other", (spec) => {
    spec.volumes?.push({ name: "model-key", secret: { secretName: "drover-issuer-key" } });
  }),
  pool("whose harness holds the token for the API", "mounts no token", (spec) => {
    harness(spec).volumeMounts?.push({ name: "api-token", mountPath: "/x" });
  }),
  pool("whose harness holds the model key", "mounts no token", (spec) => {
    spec.volumes?.push({ name: "model-key", secret: { secretName: "model-key" } });
    harness(spec).volumeMounts?.push({ name: "model-key", mountPath: "/x" });
  }),
  pool("with one container more", "`harness` and `proxy`", (spec) => {
    spec.containers.push(Object.assign(structuredClone(harness(spec)), { name: "extra" }));
  }),
  pool("whose proxy runs another image", "this installation's image", (spec) => {
    proxy(spec).image = "evil";
  }),
  pool("whose proxy runs another program", "run their own process", (spec) => {
    proxy(spec).command = ["sh"];
  }),
  pool("with other arguments", "run their own process", (spec) => {
    proxy(spec).args = ["operator"];
  }),
  pool("with a hook", "run their own process", (spec) => {
    proxy(spec).lifecycle = { postStart: { exec: { command: ["sh"] } } };
  }),
  pool("with a Secret in a variable", "plain variables", (spec) => {
    harness(spec).env?.push(secretEnv);
  }),
  pool("with a Secret for its variables", "plain variables", (spec) => {
    harness(spec).envFrom = [{ secretRef: { name: "any" } }];
  }),
  pool("with a port of the node", "no port of the node", (spec) => {
    harness(spec).ports?.push({ containerPort: 1, hostPort: 1, protocol: "TCP" });
  }),
  pool("with privileges", "without privileges", (spec) => {
    Object.assign(proxy(spec).securityContext ?? {}, PRIVILEGED);
  }),
  pool("whose harness has the user of its proxy", "as their own user", (spec) => {
    Object.assign(harness(spec).securityContext ?? {}, { runAsUser: 10_003, runAsGroup: 10_003 });
  }),
  pool("with a pull secret", "pull secrets only", (spec) => {
    spec.imagePullSecrets = [{ name: "any" }];
  }),
  {
    name: "another service account",
    message: "`drover-sandbox`, and those of pools",
    ...accounts,
    object: { ...sandboxAccount(TENANT), metadata: { name: "other", namespace: TENANT } },
  },
  {
    name: "the account of a pool in another namespace",
    message: "`drover-sandbox`, and those of pools",
    ...accounts,
    object: poolAccount("default", TENANT),
  },
  {
    name: "an account whose token is mounted",
    message: "neither a token nor a Secret",
    ...accounts,
    object: { ...sandboxAccount(TENANT), automountServiceAccountToken: true },
  },
  {
    name: "an account with a pull secret",
    message: "neither a token nor a Secret",
    ...accounts,
    object: { ...sandboxAccount(TENANT), imagePullSecrets: [{ name: "any" }] },
  },
  {
    name: "a NetworkPolicy by another name",
    message: "have the name `drover-sandbox`",
    ...policies,
    object: { ...policyOf(true), metadata: { name: "open", namespace: TENANT } },
  },
  network("for pods that are no sandboxes", { podSelector: {} }, "selects the sandboxes"),
  network("for one direction", { policyTypes: ["Ingress"] }, "for both directions"),
  ...[
    { name: "that opens the internet", egress: [{ to: [{ ipBlock: { cidr: "0.0.0.0/0" } }] }] },
    { name: "that opens everything", egress: [{}] },
    { name: "that lets every pod in", ingress: [{ from: [{ podSelector: {} }] }] },
  ].map(({ name, ...spec }) =>
    network(name, spec, "to pods of Drover in the install namespace only"),
  ),
];
