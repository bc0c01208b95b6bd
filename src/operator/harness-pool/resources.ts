import type {
  V1Container,
  V1EnvVar,
  V1PodSpec,
  V1SecurityContext,
  V1Volume,
  V1VolumeMount,
} from "@kubernetes/client-node";
import type { HarnessPoolSpec } from "../../api/harness-pool.ts";
import { FIELD_MANAGERS, LABELS, PORTS } from "../../api/names.ts";
import type { ServiceAccount } from "../../kube/resources.ts";
import { ISSUER_AUDIENCE } from "../../protocol/proxy-api.ts";
import type { Deployment, PodDisruptionBudget } from "../kinds.ts";
import {
  COMPONENTS,
  childLabels,
  labelValue,
  poolDeployment,
  poolServiceAccount,
} from "../names.ts";

/**
 * The pods of a HarnessPool (design: architecture §2, security §14). Two containers that must not
 * reach into each other: the harness holds no credential, its proxy holds all of them. So they run
 * under different UIDs, share no process namespace, and only the proxy mounts tokens and the model
 * key. No `fsGroup`: it can make the proxy's tokens readable for the harness' UID.
 */

export interface InstallSettings {
  /** Namespace of the install, and of every pool. */
  namespace: string;
  /** The control-plane image. */
  image: string;
  imagePullPolicy: "Always" | "IfNotPresent" | "Never";
  imagePullSecrets: readonly string[];
  logLevel: string;
  redis: {
    url: string;
    username?: string | undefined;
    /** Where the password is; the harness mounts it, the operator reads its own mount. */
    secret?: { name: string; key: string } | undefined;
    /** Where the authorities of a `rediss://` address are, as with the password. */
    caSecret?: { name: string; key: string } | undefined;
    commit: string;
  };
  lease: { ttlMs: number; renewMs: number };
  issuer: { url: string; certificate: string };
}

export interface PoolIdentity {
  name: string;
  /** The pool's code in session ids and Redis keys. */
  code: string;
}

export const HARNESS_UID = 10_002;
export const PROXY_UID = 10_003;
/** A worker hands its sessions over within seconds; the rest is for a slow store. */
const GRACE_SECONDS = 45;
const TOKEN_SECONDS = 3600;

const REDIS_DIR = "/var/run/secrets/drover/redis";
const REDIS_CA_DIR = "/var/run/secrets/drover/redis-ca";
const MODEL_DIR = "/var/run/secrets/drover/model";
const ISSUER_DIR = "/var/run/secrets/drover/issuer";
const API_DIR = "/var/run/secrets/drover/api";

export function selectorOf(pool: string): Record<string, string> {
  return {
    [LABELS.component]: COMPONENTS.harness,
    [LABELS.managedBy]: FIELD_MANAGERS.children,
    [LABELS.pool]: labelValue(pool),
  };
}

/** As `/scale` wants it. */
export function selectorText(pool: string): string {
  return Object.entries(selectorOf(pool))
    .map(([key, value]) => `${key}=${value}`)
    .join(",");
}

export function buildServiceAccount(pool: string, namespace: string): ServiceAccount {
  return {
    apiVersion: "v1",
    kind: "ServiceAccount",
    metadata: { name: poolServiceAccount(pool), namespace, labels: labelsOf(pool) },
    automountServiceAccountToken: false,
  };
}

export function buildPodDisruptionBudget(pool: string, namespace: string): PodDisruptionBudget {
  return {
    apiVersion: "policy/v1",
    kind: "PodDisruptionBudget",
    metadata: { name: poolDeployment(pool), namespace, labels: labelsOf(pool) },
    spec: { maxUnavailable: 1, selector: { matchLabels: selectorOf(pool) } },
  };
}

export function buildDeployment(
  pool: PoolIdentity,
  spec: HarnessPoolSpec,
  install: InstallSettings,
): Deployment {
  return {
    apiVersion: "apps/v1",
    kind: "Deployment",
    metadata: {
      name: poolDeployment(pool.name),
      namespace: install.namespace,
      labels: labelsOf(pool.name),
    },
    spec: {
      replicas: spec.replicas,
      selector: { matchLabels: selectorOf(pool.name) },
      // A new worker is ready before an old one hands its sessions over.
      strategy: { type: "RollingUpdate", rollingUpdate: { maxUnavailable: 0, maxSurge: 1 } },
      template: {
        metadata: { labels: labelsOf(pool.name) },
        spec: buildPodSpec(pool, spec, install),
      },
    },
  };
}

function labelsOf(pool: string): Record<string, string> {
  return { ...childLabels(COMPONENTS.harness, pool), ...selectorOf(pool) };
}

function buildPodSpec(
  pool: PoolIdentity,
  spec: HarnessPoolSpec,
  install: InstallSettings,
): V1PodSpec {
  return {
    serviceAccountName: poolServiceAccount(pool.name),
    automountServiceAccountToken: false,
    enableServiceLinks: false,
    shareProcessNamespace: false,
    terminationGracePeriodSeconds: GRACE_SECONDS,
    ...(install.imagePullSecrets.length === 0
      ? {}
      : { imagePullSecrets: install.imagePullSecrets.map((name) => ({ name })) }),
    securityContext: { runAsNonRoot: true, seccompProfile: { type: "RuntimeDefault" } },
    topologySpreadConstraints: [
      {
        maxSkew: 1,
        topologyKey: "kubernetes.io/hostname",
        whenUnsatisfiable: "ScheduleAnyway",
        labelSelector: { matchLabels: selectorOf(pool.name) },
      },
    ],
    initContainers: [proxyContainer(spec, install)],
    containers: [harnessContainer(pool, spec, install)],
    volumes: volumes(spec, install),
  };
}

function harnessContainer(
  pool: PoolIdentity,
  spec: HarnessPoolSpec,
  install: InstallSettings,
): V1Container {
  const { redis, lease } = install;
  return {
    name: "harness",
    image: spec.image ?? install.image,
    imagePullPolicy: install.imagePullPolicy,
    args: ["harness"],
    env: [
      { name: "DROVER_WORKER_ID", valueFrom: { fieldRef: field("metadata.uid") } },
      { name: "DROVER_POOL_CODE", value: pool.code },
      { name: "DROVER_POOL_PARTITIONS", value: String(spec.partitions) },
      { name: "DROVER_CONCURRENCY", value: String(spec.concurrency) },
      ...redisEnv(install),
      { name: "DROVER_REDIS_COMMIT", value: redis.commit },
      { name: "DROVER_LEASE_TTL_MS", value: String(lease.ttlMs) },
      { name: "DROVER_LEASE_RENEW_MS", value: String(lease.renewMs) },
      { name: "DROVER_PROXY_URL", value: `http://127.0.0.1:${PORTS.proxy}` },
      { name: "DROVER_HEALTH_PORT", value: String(PORTS.health) },
      { name: "DROVER_LOG_LEVEL", value: install.logLevel },
    ],
    ports: [{ name: "health", containerPort: PORTS.health, protocol: "TCP" }],
    startupProbe: { ...probe("/livez", PORTS.health), periodSeconds: 2, failureThreshold: 60 },
    livenessProbe: { ...probe("/livez", PORTS.health), periodSeconds: 10, failureThreshold: 6 },
    readinessProbe: { ...probe("/readyz", PORTS.health), periodSeconds: 2, failureThreshold: 3 },
    resources: {
      requests: { cpu: spec.resources.cpu, memory: spec.resources.memory },
      limits: { memory: spec.resources.memory },
    },
    securityContext: restricted(HARNESS_UID),
    volumeMounts: [{ name: "tmp", mountPath: "/tmp" }, ...redisMounts(install)],
  };
}

/** A native sidecar: starts before the harness and stops after it. */
function proxyContainer(spec: HarnessPoolSpec, install: InstallSettings): V1Container {
  const { apiKeySecret, baseUrl } = spec.model;
  const servers = (spec.inClusterServers ?? []).map(
    ({ host, port }) => `${host.toLowerCase()}:${port}`,
  );
  return {
    name: "proxy",
    image: install.image,
    imagePullPolicy: install.imagePullPolicy,
    restartPolicy: "Always",
    args: ["proxy"],
    env: [
      { name: "DROVER_POD_UID", valueFrom: { fieldRef: field("metadata.uid") } },
      ...redisEnv(install),
      { name: "DROVER_MODEL_BASE_URL", value: baseUrl },
      ...optional("DROVER_MODEL_API_KEY_FILE", apiKeySecret && `${MODEL_DIR}/api-key`),
      { name: "DROVER_ISSUER_URL", value: install.issuer.url },
      { name: "DROVER_ISSUER_CERTIFICATE", value: install.issuer.certificate },
      ...optional("DROVER_IN_CLUSTER_SERVERS", servers.join(",")),
      { name: "DROVER_LOG_LEVEL", value: install.logLevel },
    ],
    ports: [{ name: "proxy-health", containerPort: PORTS.proxyHealth, protocol: "TCP" }],
    startupProbe: {
      ...probe("/livez", PORTS.proxyHealth),
      periodSeconds: 1,
      failureThreshold: 120,
    },
    livenessProbe: {
      ...probe("/livez", PORTS.proxyHealth),
      periodSeconds: 10,
      failureThreshold: 6,
    },
    resources: { requests: { cpu: "20m", memory: "128Mi" }, limits: { memory: "384Mi" } },
    securityContext: restricted(PROXY_UID),
    volumeMounts: [
      { name: "proxy-tmp", mountPath: "/tmp" },
      secretMount("issuer-token", ISSUER_DIR),
      secretMount("api-token", API_DIR),
      ...redisMounts(install),
      ...(apiKeySecret === undefined ? [] : [secretMount("model-key", MODEL_DIR)]),
    ],
  };
}

/** Harness and proxy both use Redis: the one appends, the other reads leases and snapshots. */
function redisEnv({ redis }: InstallSettings): V1EnvVar[] {
  return [
    { name: "DROVER_REDIS_URL", value: redis.url },
    ...optional("DROVER_REDIS_USERNAME", redis.username),
    ...optional("DROVER_REDIS_PASSWORD_FILE", redis.secret && `${REDIS_DIR}/password`),
    ...optional("DROVER_REDIS_CA_FILE", redis.caSecret && `${REDIS_CA_DIR}/ca.crt`),
  ];
}

function redisMounts({ redis }: InstallSettings): V1VolumeMount[] {
  return [
    ...(redis.secret === undefined ? [] : [secretMount("redis", REDIS_DIR)]),
    ...(redis.caSecret === undefined ? [] : [secretMount("redis-ca", REDIS_CA_DIR)]),
  ];
}

function volumes(spec: HarnessPoolSpec, { redis }: InstallSettings): V1Volume[] {
  const { apiKeySecret } = spec.model;
  return [
    { name: "tmp", emptyDir: { sizeLimit: "64Mi" } },
    { name: "proxy-tmp", emptyDir: { sizeLimit: "64Mi" } },
    {
      name: "issuer-token",
      projected: {
        sources: [
          {
            serviceAccountToken: {
              audience: ISSUER_AUDIENCE,
              expirationSeconds: TOKEN_SECONDS,
              path: "token",
            },
          },
        ],
      },
    },
    {
      name: "api-token",
      projected: {
        sources: [
          { serviceAccountToken: { expirationSeconds: TOKEN_SECONDS, path: "token" } },
          {
            configMap: {
              name: "kube-root-ca.crt",
              items: [{ key: "ca.crt", path: "ca.crt" }],
            },
          },
        ],
      },
    },
    ...secretVolume("redis", redis.secret, "password"),
    ...secretVolume("redis-ca", redis.caSecret, "ca.crt"),
    ...secretVolume("model-key", apiKeySecret, "api-key"),
  ];
}

function secretVolume(
  name: string,
  secret: { name: string; key: string } | undefined,
  path: string,
): V1Volume[] {
  if (secret === undefined) return [];
  return [{ name, secret: { secretName: secret.name, items: [{ key: secret.key, path }] } }];
}

function secretMount(name: string, mountPath: string): V1VolumeMount {
  return { name, mountPath, readOnly: true };
}

function optional(name: string, value: string | undefined): V1EnvVar[] {
  return value === undefined || value === "" ? [] : [{ name, value }];
}

function field(fieldPath: string) {
  return { apiVersion: "v1", fieldPath };
}

function probe(path: string, port: number) {
  return { httpGet: { path, port }, timeoutSeconds: 2 };
}

function restricted(uid: number): V1SecurityContext {
  return {
    runAsUser: uid,
    runAsGroup: uid,
    runAsNonRoot: true,
    allowPrivilegeEscalation: false,
    readOnlyRootFilesystem: true,
    capabilities: { drop: ["ALL"] },
    seccompProfile: { type: "RuntimeDefault" },
  };
}
