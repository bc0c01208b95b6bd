import type { KubeObject, ResourceType } from "./objects.ts";

/** A kind whose `spec` and `status` the caller reads with types of its own. */
export interface AnyKind extends KubeObject {
  spec?: Record<string, unknown>;
  status?: Record<string, unknown>;
}

export interface Secret extends KubeObject {
  type?: string;
  /** Values in base64. */
  data?: Record<string, string>;
  stringData?: Record<string, string>;
}

export interface ConfigMap extends KubeObject {
  data?: Record<string, string>;
}

export interface ServiceAccount extends KubeObject {
  automountServiceAccountToken?: boolean;
}

export interface Lease extends KubeObject {
  spec?: {
    holderIdentity?: string | null;
    leaseDurationSeconds?: number | null;
    acquireTime?: string | null;
    renewTime?: string | null;
    leaseTransitions?: number | null;
  };
}

/** An `events.k8s.io/v1` Event. */
export interface KubeEvent extends KubeObject {
  eventTime: string | null;
  type: "Normal" | "Warning";
  reason: string;
  note?: string;
  action: string;
  reportingController: string;
  reportingInstance: string;
  regarding: ObjectReference;
  related?: ObjectReference;
  series?: { count: number; lastObservedTime: string };
}

export interface ObjectReference {
  apiVersion?: string;
  kind?: string;
  name?: string;
  namespace?: string;
  uid?: string;
  resourceVersion?: string;
  fieldPath?: string;
}

export interface TokenReview extends KubeObject {
  spec: { token: string; audiences?: string[] };
  status?: {
    authenticated?: boolean;
    error?: string;
    audiences?: string[];
    user?: {
      username?: string;
      uid?: string;
      groups?: string[];
      extra?: Record<string, string[]>;
    };
  };
}

export interface SubjectAccessReview extends KubeObject {
  spec: Record<string, unknown>;
  status?: { allowed: boolean; denied?: boolean; reason?: string; evaluationError?: string };
}

/** Describes a namespaced kind; for cluster-scoped ones pass `{ namespaced: false }`. */
export function defineResource<T extends KubeObject = AnyKind>(
  apiVersion: string,
  kind: string,
  plural: string,
  options: { namespaced: boolean } = { namespaced: true },
): ResourceType<T> {
  const [first = "", second] = apiVersion.split("/");
  const group = second === undefined ? "" : first;
  return { group, version: second ?? first, kind, plural, namespaced: options.namespaced };
}

const clusterScoped = { namespaced: false };

export const pods = defineResource("v1", "Pod", "pods");
export const secrets = defineResource<Secret>("v1", "Secret", "secrets");
export const configMaps = defineResource<ConfigMap>("v1", "ConfigMap", "configmaps");
export const serviceAccounts = defineResource<ServiceAccount>(
  "v1",
  "ServiceAccount",
  "serviceaccounts",
);
export const namespaces = defineResource("v1", "Namespace", "namespaces", clusterScoped);
export const nodes = defineResource("v1", "Node", "nodes", clusterScoped);
export const deployments = defineResource("apps/v1", "Deployment", "deployments");
export const leases = defineResource<Lease>("coordination.k8s.io/v1", "Lease", "leases");
export const events = defineResource<KubeEvent>("events.k8s.io/v1", "Event", "events");
export const customResourceDefinitions = defineResource(
  "apiextensions.k8s.io/v1",
  "CustomResourceDefinition",
  "customresourcedefinitions",
  clusterScoped,
);
export const tokenReviews = defineResource<TokenReview>(
  "authentication.k8s.io/v1",
  "TokenReview",
  "tokenreviews",
  clusterScoped,
);
export const subjectAccessReviews = defineResource<SubjectAccessReview>(
  "authorization.k8s.io/v1",
  "SubjectAccessReview",
  "subjectaccessreviews",
  clusterScoped,
);
