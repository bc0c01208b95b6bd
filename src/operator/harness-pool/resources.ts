import type { V1Container, V1PodSpec } from "@kubernetes/client-node";
import type { HarnessPoolSpec } from "../../api/harness-pool.ts";
import { EDGE, FIELD_MANAGERS, LABELS, PORTS } from "../../api/names.ts";
import type { ServiceAccount } from "../../kube/resources.ts";
import type { InstallSettings } from "../install-settings.ts";
import type { Deployment, PodDisruptionBudget } from "../kinds.ts";
import {
  COMPONENTS,
  childLabels,
  labelValue,
  poolDeployment,
  poolServiceAccount,
} from "../names.ts";
import {
  apiPart,
  containerParts,
  httpProbe,
  issuerPart,
  joined,
  type PodPart,
  podDefaults,
  podField,
  redisPart,
  scratch,
  secretFile,
  variables,
  vaultPart,
  volumesOf,
} from "../pod-parts.ts";

/**
 * The pods of a HarnessPool (docs/architecture.md#processes, docs/design/security.md#pods). Two
 * containers that must not reach into each other: the harness holds no credential, its proxy holds
 * all of them. So they run under different UIDs, share no process namespace, and only the proxy
 * mounts tokens and the model key. No `fsGroup`: it can make the proxy's tokens readable for the
 * harness' UID.
 */

export interface PoolIdentity {
  name: string;
  /** The pool's code in session ids and Redis keys. */
  code: string;
}

export const HARNESS_UID = 10_002;
export const PROXY_UID = 10_003;
/** A worker hands its sessions over within seconds; the rest is for a slow store. */
const GRACE_SECONDS = 45;
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
  const harness = harnessPart(pool, spec, install);
  const proxy = proxyPart(spec, install);
  return {
    ...podDefaults(install, selectorOf(pool.name)),
    serviceAccountName: poolServiceAccount(pool.name),
    terminationGracePeriodSeconds: GRACE_SECONDS,
    initContainers: [proxyContainer(proxy, install)],
    containers: [harnessContainer(harness, spec, install)],
    volumes: volumesOf(harness, proxy),
  };
}

function harnessPart(pool: PoolIdentity, spec: HarnessPoolSpec, install: InstallSettings): PodPart {
  const { redis, lease, edge, namespace } = install;
  return joined(
    scratch("tmp"),
    podField("DROVER_WORKER_ID", "metadata.uid"),
    redisPart(install, "harness"),
    variables({
      DROVER_POOL_CODE: pool.code,
      DROVER_POOL_PARTITIONS: String(spec.partitions),
      DROVER_CONCURRENCY: String(spec.concurrency),
      DROVER_MCP_CALL_TIMEOUT_MS: String(spec.mcpCallTimeoutSeconds * 1000),
      DROVER_REDIS_COMMIT: redis.commit,
      DROVER_LEASE_TTL_MS: String(lease.ttlMs),
      DROVER_LEASE_RENEW_MS: String(lease.renewMs),
      DROVER_PROXY_URL: `http://127.0.0.1:${PORTS.proxy}`,
      DROVER_EDGE_URL: edge && `http://${EDGE}.${namespace}.svc:${PORTS.edge}`,
      DROVER_HEALTH_PORT: String(PORTS.health),
      DROVER_LOG_LEVEL: install.logLevel,
    }),
  );
}

function harnessContainer(
  part: PodPart,
  spec: HarnessPoolSpec,
  install: InstallSettings,
): V1Container {
  return {
    name: "harness",
    image: spec.image ?? install.image,
    imagePullPolicy: install.imagePullPolicy,
    args: ["harness"],
    ports: [{ name: "health", containerPort: PORTS.health, protocol: "TCP" }],
    startupProbe: httpProbe("/livez", PORTS.health, { periodSeconds: 2, failureThreshold: 60 }),
    livenessProbe: httpProbe("/livez", PORTS.health, { periodSeconds: 10, failureThreshold: 6 }),
    readinessProbe: httpProbe("/readyz", PORTS.health, { periodSeconds: 2, failureThreshold: 3 }),
    resources: {
      requests: { cpu: spec.resources.cpu, memory: spec.resources.memory },
      limits: { memory: spec.resources.memory },
    },
    ...containerParts(part, HARNESS_UID),
  };
}

function proxyPart(spec: HarnessPoolSpec, install: InstallSettings): PodPart {
  const { apiKeySecret, apiKeyVaultRef, baseUrl } = spec.model;
  const servers = (spec.inClusterServers ?? []).map(
    ({ host, port }) => `${host.toLowerCase()}:${port}`,
  );
  return joined(
    scratch("proxy-tmp"),
    podField("DROVER_POD_UID", "metadata.uid"),
    redisPart(install, "proxy"),
    issuerPart(install),
    apiPart(),
    vaultPart(install.vault, apiKeyVaultRef !== undefined),
    secretFile("model-key", apiKeySecret, {
      variable: "DROVER_MODEL_API_KEY_FILE",
      file: "api-key",
    }),
    variables({
      DROVER_MODEL_BASE_URL: baseUrl,
      DROVER_MODEL_API_KEY_VAULT_PATH: apiKeyVaultRef?.path,
      DROVER_MODEL_API_KEY_VAULT_KEY: apiKeyVaultRef?.key,
      DROVER_IN_CLUSTER_SERVERS: servers.join(","),
      DROVER_PROXY_MAX_IN_FLIGHT: String(maxInFlight(spec.concurrency)),
      DROVER_MCP_CALL_TIMEOUT_MS: String(spec.mcpCallTimeoutSeconds * 1000),
      DROVER_LOG_LEVEL: install.logLevel,
    }),
  );
}

/** Each session may have a request to its model, or a few to its servers; more waits its turn there. */
const REQUESTS_PER_SESSION = 2;
const LEAST_IN_FLIGHT = 256;

/** The sidecar serves all sessions of its worker: its limit must never be what stops them. */
function maxInFlight(concurrency: number): number {
  return Math.max(LEAST_IN_FLIGHT, concurrency * REQUESTS_PER_SESSION);
}

/** A native sidecar: starts before the harness and stops after it. */
function proxyContainer(part: PodPart, install: InstallSettings): V1Container {
  const { proxyHealth } = PORTS;
  return {
    name: "proxy",
    image: install.image,
    imagePullPolicy: install.imagePullPolicy,
    restartPolicy: "Always",
    args: ["proxy"],
    ports: [{ name: "proxy-health", containerPort: proxyHealth, protocol: "TCP" }],
    startupProbe: httpProbe("/livez", proxyHealth, { periodSeconds: 1, failureThreshold: 120 }),
    livenessProbe: httpProbe("/livez", proxyHealth, { periodSeconds: 10, failureThreshold: 6 }),
    resources: { requests: { cpu: "20m", memory: "128Mi" }, limits: { memory: "384Mi" } },
    ...containerParts(part, PROXY_UID),
  };
}
