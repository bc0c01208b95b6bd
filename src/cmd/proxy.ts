import { readFileSync } from "node:fs";
import { KubernetesSecretSource } from "../credentials/kubernetes-secret/kubernetes-secret-source.ts";
import { SecretClient } from "../credentials/kubernetes-secret/secret-client.ts";
import { type ProxyConfig, proxyConfig } from "../proxy/config.ts";
import { CredentialReports } from "../proxy/credential-reports.ts";
import { IssuerClient } from "../proxy/issuer-client.ts";
import { createProxyMetrics } from "../proxy/metrics.ts";
import { FileKeyReader, type PoolKeyReader } from "../proxy/model-key.ts";
import { createProxyServer, type ProxyServer } from "../proxy/server.ts";
import { aborted } from "../runtime/abort.ts";
import { backoffMs } from "../runtime/backoff.ts";
import { systemClock } from "../runtime/clock.ts";
import { loadConfig } from "../runtime/config.ts";
import { AppError, describeError } from "../runtime/errors.ts";
import { createHealthServer } from "../runtime/health.ts";
import { createLogger, type Logger } from "../runtime/logger.ts";
import { createRegistry } from "../runtime/metrics.ts";
import { runProcess } from "../runtime/process.ts";
import { systemRng } from "../runtime/rng.ts";
import { VERSION } from "../runtime/version.ts";
import { createRedisSessionPorts } from "../sessions/redis/redis-session-store.ts";
import { redisAddress } from "./redis-address.ts";

/** `drover proxy`: the sidecar of a harness pod; the only process there that holds credentials. */
export async function proxyMain(
  env: Readonly<Record<string, string | undefined>>,
  signal: AbortSignal,
): Promise<number> {
  const config = loadConfig(proxyConfig, env);
  const logger = createLogger({ level: config.logLevel, process: "proxy" });
  const registry = createRegistry("proxy", VERSION);
  const secrets = new SecretClient({
    server: kubernetesUrl(config),
    tokenFile: config.apiTokenFile,
    ca: readCa(config.apiCaFile),
  });
  const sessions = createRedisSessionPorts({
    ...redisAddress(config),
    logger,
  });
  const issuer = new IssuerClient({
    url: config.issuerUrl,
    certificate: config.issuerCertificate,
    tokenFile: config.issuerTokenFile,
  });
  const reports = new CredentialReports({ writer: sessions, clock: systemClock });
  const proxy = createProxyServer({
    issuer,
    leases: sessions,
    snapshots: sessions,
    credentials: new KubernetesSecretSource({ secrets }),
    onCredentialRead: reports.note,
    podUid: config.podUid,
    model: { baseUrl: config.modelBaseUrl, poolKey: poolKeyReader(config) },
    inClusterServers: config.inClusterServers,
    maxInFlight: config.maxInFlight,
    clock: systemClock,
    logger,
    metrics: createProxyMetrics(registry),
  });
  const health = createHealthServer({ registry, checks: { issuer: () => proxy.readiness() } });
  await health.listen({ host: config.healthHost, port: config.healthPort });
  const port = await proxy.listen(config.port);
  logger.info({ port, healthPort: config.healthPort }, "proxy listening");
  await loadKeys(proxy, logger, signal);
  await aborted(signal);
  await proxy.close();
  await health.close();
  sessions.close();
  await Promise.all([issuer.close(), secrets.close()]);
  return 0;
}

/** Until it succeeds: the operator may come up after us. */
async function loadKeys(proxy: ProxyServer, logger: Logger, signal: AbortSignal): Promise<void> {
  for (let attempt = 1; !signal.aborted; attempt += 1) {
    try {
      await proxy.loadKeys();
      return;
    } catch (error) {
      logger.warn({ attempt, err: describeError(error) }, "issuer not reached yet");
    }
    const delay = backoffMs(attempt, { baseMs: 200, maxMs: 5000 }, systemRng);
    // Rejects when the process is to stop; the loop's condition sees that.
    await systemClock.sleep(delay, signal).catch(() => {});
  }
}

function poolKeyReader({ modelApiKeyFile: path }: ProxyConfig): PoolKeyReader | undefined {
  return path === undefined ? undefined : new FileKeyReader({ path });
}

function kubernetesUrl({ kubernetesHost: host, kubernetesPort: port }: ProxyConfig): string {
  return `https://${host.includes(":") ? `[${host}]` : host}:${port}`;
}

function readCa(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch (cause) {
    throw new AppError("CONFIG_INVALID", `DROVER_API_CA_FILE: cannot read "${path}"`, { cause });
  }
}

if (import.meta.main) {
  await runProcess((signal) => proxyMain(process.env, signal));
}
