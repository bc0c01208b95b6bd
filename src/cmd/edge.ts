import { AuditLog } from "../proxy/audit.ts";
import { CredentialReports } from "../proxy/credential-reports.ts";
import { edgeConfig } from "../proxy/edge/config.ts";
import { createEdgeServer } from "../proxy/edge/server.ts";
import { IssuerClient } from "../proxy/issuer-client.ts";
import { createProxyMetrics, EDGE_ROLES } from "../proxy/metrics.ts";
import { aborted } from "../runtime/abort.ts";
import { systemClock } from "../runtime/clock.ts";
import { loadConfig } from "../runtime/config.ts";
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

/** Running transfers may end in this time; the pod is given some more (operator/edge/resources.ts). */
const DRAIN_MS = 45_000;

/** `drover edge`: git for sandboxes; adds the credentials that these never see. */
export async function edgeMain(
  env: Readonly<Record<string, string | undefined>>,
  signal: AbortSignal,
): Promise<number> {
  const config = loadConfig(edgeConfig, env);
  const logger = createLogger({ level: config.logLevel, process: "edge" });
  const registry = createRegistry("edge", VERSION);
  const metrics = createProxyMetrics(registry, EDGE_ROLES);
  const sessions = createRedisSessionPorts({ ...redisAddress(config), logger });
  const issuer = new IssuerClient({
    url: config.issuerUrl,
    certificate: config.issuerCertificate,
    tokenFile: config.issuerTokenFile,
  });
  const credentials = openCredentialSources(config, { tokens: issuer, logger, metrics });
  const audit = new AuditLog({
    sink: stdoutAuditSink,
    checkpoints: sessions,
    process: "edge",
    podUid: config.podUid,
    clock: systemClock,
    logger,
    metrics,
  });
  const reports = new CredentialReports({ writer: sessions, clock: systemClock });
  const edge = createEdgeServer({
    issuer,
    bindings: sessions,
    leases: sessions,
    snapshots: sessions,
    credentials: credentials.source,
    onCredentialRead: reports.note,
    inClusterServers: config.inClusterServers,
    maxInFlight: config.maxInFlight,
    requestsPerMinute: config.requestsPerMinute,
    audit,
    clock: systemClock,
    logger,
    metrics,
  });
  const health = createHealthServer({ registry, checks: { issuer: () => edge.readiness() } });
  await health.listen({ host: config.healthHost, port: config.healthPort });
  const port = await edge.listen(config);
  logger.info({ port, healthPort: config.healthPort }, "edge listening");
  const served = new AbortController();
  const auditing = audit.run(served.signal);
  await loadKeys(edge, logger, signal);
  await aborted(signal);
  await closeWithin(DRAIN_MS, edge);
  served.abort();
  await auditing;
  await health.close();
  sessions.close();
  await Promise.all([issuer.close(), credentials.close()]);
  return 0;
}

async function closeWithin(
  ms: number,
  server: { close(deadline: AbortSignal): Promise<void> },
): Promise<void> {
  const deadline = new AbortController();
  const stopTimer = systemClock.timer(ms, () => deadline.abort());
  await server.close(deadline.signal);
  stopTimer();
}

if (import.meta.main) {
  await runProcess((signal) => edgeMain(process.env, signal));
}
