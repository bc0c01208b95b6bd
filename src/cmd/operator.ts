import { EventRecorder } from "../kube/event-recorder.ts";
import { LeaderElector } from "../kube/leader-election.ts";
import { LiveClient } from "../kube/live-client.ts";
import { Manager } from "../kube/manager.ts";
import { createKubeMetrics, type KubeMetrics } from "../kube/metrics.ts";
import { createCaches } from "../operator/caches.ts";
import { type OperatorConfig, operatorConfig } from "../operator/config.ts";
import { createControllers } from "../operator/controllers.ts";
import type { InstallSettings, RedisLogin, SecretKey } from "../operator/install-settings.ts";
import { Checkpoints } from "../operator/issuer/checkpoints.ts";
import { createIssuer } from "../operator/issuer/issuer.ts";
import { type IssuerKeys, loadIssuerKeys } from "../operator/issuer/key-store.ts";
import { publishKeys } from "../operator/issuer/published-keys.ts";
import { createIssuerServer } from "../operator/issuer/server.ts";
import { KubeTokenReviewer } from "../operator/issuer/token-review.ts";
import {
  createOperatorMetrics,
  type OperatorMetrics,
  observeSessions,
} from "../operator/metrics.ts";
import { COMPONENTS, childLabels, LEADER_LEASE } from "../operator/names.ts";
import { ReconnectingLog } from "../operator/reconnecting-log.ts";
import type { CheckpointStore } from "../protocol/proxy-ports.ts";
import { aborted } from "../runtime/abort.ts";
import { type Clock, systemClock } from "../runtime/clock.ts";
import { loadConfig } from "../runtime/config.ts";
import { describeError } from "../runtime/errors.ts";
import type { Runnable } from "../runtime/group.ts";
import { createHealthServer } from "../runtime/health.ts";
import type { HttpServer } from "../runtime/http.ts";
import { createLogger, type Logger } from "../runtime/logger.ts";
import { createRegistry } from "../runtime/metrics.ts";
import { runProcess } from "../runtime/process.ts";
import { type Rng, systemRng } from "../runtime/rng.ts";
import { VERSION } from "../runtime/version.ts";
import { parseCommitMode } from "../sessions/commit-mode.ts";
import { probeRedis } from "../sessions/redis/probe.ts";
import {
  connectRedisSessionStore,
  createRedisSessionPorts,
} from "../sessions/redis/redis-session-store.ts";
import { redisAddress } from "./redis-address.ts";

/** `drover operator`: controllers on the leader; issuer, health and metrics on every replica. */
export async function operatorMain(
  env: Readonly<Record<string, string | undefined>>,
  signal: AbortSignal,
): Promise<number> {
  const config = loadConfig(operatorConfig, env);
  const logger = createLogger({ level: config.logLevel, process: "operator" });
  const registry = createRegistry("operator", VERSION);
  const kubeMetrics = createKubeMetrics(registry);
  const common = { clock: systemClock, rng: systemRng, logger };
  const client = createClient(config, kubeMetrics, logger);
  const keys = await loadIssuerKeys({
    ...common,
    client,
    namespace: config.namespace,
    secretName: config.issuerSecret,
  });
  const jwks = { keys: [keys.signing.publicJwk] };
  await publishKeys({ client, namespace: config.namespace }, jwks).catch((error: unknown) => {
    // Only who sets up a vault misses them.
    logger.warn({ err: describeError(error) }, "the issuer's public keys are not published");
  });
  const log = createLog(config, logger);
  const proxyRecords = createRedisSessionPorts({ ...redisAddress(config), logger });
  const caches = createCaches({ ...common, client }, config.namespace);
  const metrics = createOperatorMetrics(registry);
  observeSessions(registry, caches.sessions, () => systemClock.now());
  const events = new EventRecorder({
    ...common,
    client,
    reportingController: "drover.dev/operator",
    reportingInstance: config.podName,
  });
  const { controllers, leaderOnly } = createControllers({
    ...common,
    client,
    caches,
    log,
    storeProblem: () => log.problem()?.message,
    bindings: log,
    credentialReports: proxyRecords,
    events,
    metrics,
    install: installSettings(config, keys),
    commit: parseCommitMode(config.redisCommit),
    publicKeys: () => jwks,
    userNamespaces: config.userNamespaces,
  });
  const elector = createElector(config, { ...common, client, metrics: kubeMetrics });
  const manager: Manager = new Manager({
    ...common,
    metrics: kubeMetrics,
    informers: Object.values(caches),
    controllers,
    leaderOnly,
    ...(config.leaderElection ? { elector } : {}),
    always: [
      listening("health", config.host, config.healthPort, () =>
        createHealthServer({
          registry,
          checks: {
            informers: () => manager.readiness(),
            "session store": () => log.problem()?.message,
          },
        }),
      ),
      { name: "session store", run: (stop) => log.run(stop) },
      listening("issuer", config.host, config.issuerPort, () =>
        issuerServer({ config, keys, log, proxyRecords, client, metrics }),
      ),
    ],
  });
  await manager.run(signal);
  await events.close();
  proxyRecords.close();
  client.close();
  return 0;
}

function createClient(
  { kubeconfig }: OperatorConfig,
  { restClient }: KubeMetrics,
  logger: Logger,
): LiveClient {
  return new LiveClient({
    clock: systemClock,
    rng: systemRng,
    config: kubeconfig === undefined ? { from: "in-cluster" } : { from: "file", path: kubeconfig },
    userAgent: `drover-operator/${VERSION}`,
    metrics: restClient,
    logger,
  });
}

function createElector(
  { namespace, podName }: OperatorConfig,
  deps: { client: LiveClient; clock: Clock; rng: Rng; logger: Logger; metrics: KubeMetrics },
): LeaderElector {
  const labels = childLabels(COMPONENTS.operator, LEADER_LEASE);
  return new LeaderElector({
    ...deps,
    lease: { namespace, name: LEADER_LEASE, labels },
    identity: deps.rng.id(podName),
  });
}

function createLog(config: OperatorConfig, logger: Logger): ReconnectingLog {
  const address = redisAddress(config);
  const commit = parseCommitMode(config.redisCommit);
  const common = { clock: systemClock, rng: systemRng, logger };
  return new ReconnectingLog({
    ...common,
    connect: () => connectRedisSessionStore({ ...address, ...common, commit, pools: [] }),
    probe: async () => {
      await probeRedis(address, { commit });
    },
  });
}

function installSettings(config: OperatorConfig, { tls }: IssuerKeys): InstallSettings {
  return {
    namespace: config.namespace,
    image: config.image,
    imagePullPolicy: config.imagePullPolicy,
    imagePullSecrets: config.imagePullSecrets,
    logLevel: config.logLevel,
    redis: {
      url: config.redisUrl,
      users: {
        harness: redisLogin(config, config.redisHarnessUsername, config.redisHarnessSecretKey),
        proxy: redisLogin(config, config.redisProxyUsername, config.redisProxySecretKey),
        edge: redisLogin(config, config.redisEdgeUsername, config.redisEdgeSecretKey),
      },
      caSecret: secretKey(config.redisCaSecret, config.redisCaSecretKey),
      commit: config.redisCommit,
    },
    lease: { ttlMs: config.leaseTtlMs, renewMs: config.leaseRenewMs },
    issuer: { url: config.issuerUrl, certificate: tls.cert },
    vault: vaultAccess(config),
    edge: edgeSettings(config),
  };
}

function redisLogin(
  config: OperatorConfig,
  username = config.redisUsername,
  key = config.redisSecretKey,
): RedisLogin {
  return { username, secret: secretKey(config.redisSecret, key) };
}

function vaultAccess(config: OperatorConfig): InstallSettings["vault"] {
  if (config.vaultAddress === undefined) return undefined;
  return {
    address: config.vaultAddress,
    caSecret: secretKey(config.vaultCaSecret, config.vaultCaSecretKey),
    namespace: config.vaultNamespace,
    kvMount: config.vaultKvMount,
    jwtMount: config.vaultJwtMount,
    sessionRole: config.vaultSessionRole,
    kubernetesMount: config.vaultKubernetesMount,
    poolRole: config.vaultPoolRole,
    sessionIdentity: config.vaultSessionIdentity,
  };
}

function edgeSettings(config: OperatorConfig): InstallSettings["edge"] {
  if (config.edgeReplicas === 0) return undefined;
  return {
    replicas: config.edgeReplicas,
    inClusterServers: config.edgeInClusterServers,
    resources: { cpu: config.edgeCpu, memory: config.edgeMemory },
  };
}

function secretKey(name: string | undefined, key: string): SecretKey | undefined {
  return name === undefined ? undefined : { name, key };
}

function issuerServer(deps: {
  config: OperatorConfig;
  keys: IssuerKeys;
  log: ReconnectingLog;
  proxyRecords: CheckpointStore;
  client: LiveClient;
  metrics: OperatorMetrics;
}): HttpServer {
  const { config, keys, log, proxyRecords, client, metrics } = deps;
  return createIssuerServer({
    issuer: createIssuer({
      key: keys.signing,
      namespace: config.namespace,
      leases: log,
      snapshots: log,
      bindings: log,
      clock: systemClock,
    }),
    checkpoints: new Checkpoints({
      key: keys.signing,
      namespace: config.namespace,
      store: proxyRecords,
      clock: systemClock,
    }),
    reviewer: new KubeTokenReviewer({ client, clock: systemClock }),
    tls: keys.tls,
    onIssued: (outcome) => metrics.tokensIssued.inc({ outcome }),
  });
}

/** A server that listens until the group stops. */
function listening(name: string, host: string, port: number, create: () => HttpServer): Runnable {
  return {
    name,
    async run(signal) {
      const server = create();
      await server.listen({ host, port });
      await aborted(signal);
      await server.close();
    },
  };
}

if (import.meta.main) {
  await runProcess((signal) => operatorMain(process.env, signal));
}
