import type { VaultAccess } from "../credentials/vault/vault-access.ts";
import { AuditLog } from "../proxy/audit.ts";
import { type ProxyConfig, proxyConfig } from "../proxy/config.ts";
import { CredentialReports } from "../proxy/credential-reports.ts";
import { IssuerClient } from "../proxy/issuer-client.ts";
import { createProxyMetrics } from "../proxy/metrics.ts";
import { FileKeyReader, type PoolKeyReader } from "../proxy/model-key.ts";
import { createProxyServer } from "../proxy/server.ts";
import { aborted } from "../runtime/abort.ts";
import { systemClock } from "../runtime/clock.ts";
import { loadConfig } from "../runtime/config.ts";
import { AppError } from "../runtime/errors.ts";
import { createHealthServer } from "../runtime/health.ts";
import { createLogger } from "../runtime/logger.ts";
import { createRegistry } from "../runtime/metrics.ts";
import { runProcess } from "../runtime/process.ts";
import { VERSION } from "../runtime/version.ts";
import { createRedisSessionPorts } from "../sessions/redis/redis-session-store.ts";
import { stdoutAuditSink } from "./audit-sink.ts";
import { openCredentialSources } from "./credential-sources.ts";
import { loadKeys } from "./proxy-parts.ts";
import { redisAddress } from "./redis-address.ts";

/** `drover proxy`: the sidecar of a harness pod; the only process there that holds credentials. */
export async function proxyMain(
  env: Readonly<Record<string, string | undefined>>,
  signal: AbortSignal,
): Promise<number> {
  const config = loadConfig(proxyConfig, env);
  const logger = createLogger({ level: config.logLevel, process: "proxy" });
  const registry = createRegistry("proxy", VERSION);
  const sessions = createRedisSessionPorts({
    ...redisAddress(config),
    logger,
  });
  const issuer = new IssuerClient({
    url: config.issuerUrl,
    certificate: config.issuerCertificate,
    tokenFile: config.issuerTokenFile,
  });
  const metrics = createProxyMetrics(registry);
  const credentials = openCredentialSources(config, { tokens: issuer, logger, metrics });
  const audit = new AuditLog({
    sink: stdoutAuditSink,
    checkpoints: sessions,
    process: "proxy",
    podUid: config.podUid,
    clock: systemClock,
    logger,
    metrics,
  });
  const reports = new CredentialReports({ writer: sessions, clock: systemClock });
  const proxy = createProxyServer({
    issuer,
    leases: sessions,
    snapshots: sessions,
    credentials: credentials.source,
    onCredentialRead: reports.note,
    podUid: config.podUid,
    model: { baseUrl: config.modelBaseUrl, poolKey: poolKeyReader(config, credentials.vault) },
    inClusterServers: config.inClusterServers,
    maxInFlight: config.maxInFlight,
    requestsPerMinute: config.requestsPerMinute,
    audit,
    toolPins: sessions,
    clock: systemClock,
    logger,
    metrics,
  });
  const health = createHealthServer({ registry, checks: { issuer: () => proxy.readiness() } });
  await health.listen({ host: config.healthHost, port: config.healthPort });
  const port = await proxy.listen(config.port);
  logger.info({ port, healthPort: config.healthPort }, "proxy listening");
  const served = new AbortController();
  const auditing = audit.run(served.signal);
  await loadKeys(proxy, logger, signal);
  await aborted(signal);
  await proxy.close();
  served.abort();
  await auditing;
  await health.close();
  sessions.close();
  await Promise.all([issuer.close(), credentials.close()]);
  return 0;
}

function poolKeyReader(
  { modelApiKeyFile, modelApiKeyVaultPath, modelApiKeyVaultKey }: ProxyConfig,
  vault: VaultAccess | undefined,
): PoolKeyReader | undefined {
  if (modelApiKeyVaultPath === undefined) {
    return modelApiKeyFile === undefined ? undefined : new FileKeyReader({ path: modelApiKeyFile });
  }
  if (vault === undefined) {
    const message = "DROVER_MODEL_API_KEY_VAULT_PATH is set, and DROVER_VAULT_ADDRESS is not";
    throw new AppError("CONFIG_INVALID", message);
  }
  return vault.poolKey({ path: modelApiKeyVaultPath, key: modelApiKeyVaultKey });
}

if (import.meta.main) {
  await runProcess((signal) => proxyMain(process.env, signal));
}
