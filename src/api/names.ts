/** Outward names of Drover on Kubernetes. They are an interface: tests pin them. */

export const GROUP = "drover.dev";
export const VERSION = "v1alpha1";
export const API_VERSION = `${GROUP}/${VERSION}`;

export const FINALIZER = `${GROUP}/session`;

export const LABELS = {
  /** On sandbox pods, value "true": selects the isolation policies. */
  sandbox: `${GROUP}/sandbox`,
  /** UID of the AgentSession a child belongs to (a name can be longer than a label value). */
  session: `${GROUP}/session`,
  template: `${GROUP}/template`,
  pool: `${GROUP}/pool`,
  hand: `${GROUP}/hand`,
  generation: `${GROUP}/generation`,
  component: "app.kubernetes.io/component",
  managedBy: "app.kubernetes.io/managed-by",
  partOf: "app.kubernetes.io/part-of",
  name: "app.kubernetes.io/name",
  instance: "app.kubernetes.io/instance",
} as const;

export const ANNOTATIONS = {
  /** The session id, on every child. */
  sessionId: `${GROUP}/session-id`,
  templateRevision: `${GROUP}/template-revision`,
  requestId: `${GROUP}/request-id`,
} as const;

/** Server-side apply field managers. */
export const FIELD_MANAGERS = { children: "drover-operator", status: "drover-status" } as const;

/** Name of the tokenless service account and of the NetworkPolicy of sandboxes in a tenant namespace. */
export const SANDBOX_SERVICE_ACCOUNT = "drover-sandbox";
export const SANDBOX_NETWORK_POLICY = "drover-sandbox";

/** Name of the edge in the install namespace: Deployment, Service and service account. */
export const EDGE = "drover-edge";

/** Ports of our processes, the same in every pod. */
export const PORTS = {
  sandbox: 7080,
  proxy: 7070,
  issuer: 7443,
  edge: 7080,
  health: 9090,
  proxyHealth: 9091,
} as const;
