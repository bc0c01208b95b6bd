import type { SnapshotReader } from "../protocol/session-ports.ts";
import { AuditLog } from "../proxy/audit.ts";
import type { ProxyConfig } from "../proxy/config.ts";
import { CredentialReports } from "../proxy/credential-reports.ts";
import type { EdgeConfig } from "../proxy/edge/config.ts";
import { IssuerClient } from "../proxy/issuer-client.ts";
import { createProxyMetrics, type Role } from "../proxy/metrics.ts";
import { SecretChecks } from "../proxy/secret-checks.ts";
import { aborted } from "../runtime/abort.ts";
import { backoffMs } from "../runtime/backoff.ts";
import { systemClock } from "../runtime/clock.ts";
import { describeError } from "../runtime/errors.ts";
import { createHealthServer } from "../runtime/health.ts";
import { createLogger, type Logger } from "../runtime/logger.ts";
import { createRegistry } from "../runtime/metrics.ts";
import { systemRng } from "../runtime/rng.ts";
import { StoreCheck } from "../runtime/store-check.ts";
import { VERSION } from "../runtime/version.ts";
import { createRedisSessionPorts } from "../sessions/redis/redis-session-store.ts";
import { stdoutAuditSink } from "./audit-sink.ts";
import { openCredentialSources } from "./credential-sources.ts";
import { redisAddress } from "./redis-address.ts";

/** What the settings of the sidecar and of the edge have in common. */
type ProxySettings = Pick<ProxyConfig, keyof ProxyConfig & keyof EdgeConfig>;

interface Served {
  readiness(): string | undefined;
  loadKeys(): Promise<void>;
}

/** Nobody has it: the answer, that there is no such session, shows that the store answers. */
const NO_SESSION = `sesn_none00_${"0".repeat(26)}`;

/** The edge serves repositories, a sidecar everything else; each may read what it serves. */
type ProxyProcess = "proxy" | "edge";

/** What the sidecar and the edge are both made of, and how both live. Nothing is asked of anybody yet. */
export function openProxyParts(
  config: ProxySettings,
  process: ProxyProcess,
  roles?: readonly Role[],
) {
  const logger = createLogger({ level: config.logLevel, process });
  const registry = createRegistry(process, VERSION);
  const metrics = createProxyMetrics(registry, roles);
  const sessions = createRedisSessionPorts({ ...redisAddress(config), logger });
  const storeCheck = new StoreCheck({
    ask: () => sessions.readLease("none", NO_SESSION),
    clock: systemClock,
    logger,
  });
  const issuer = new IssuerClient({
    url: config.issuerUrl,
    certificate: config.issuerCertificate,
    tokenFile: config.issuerTokenFile,
  });
  const credentials = openCredentialSources(config, { tokens: issuer, logger, metrics });
  const common = { clock: systemClock, logger, metrics };
  const { podUid, inClusterServers, maxInFlight, requestsPerMinute } = config;
  const audit = new AuditLog({
    sink: stdoutAuditSink,
    checkpoints: issuer,
    process,
    podUid,
    ...common,
  });
  const reports = new CredentialReports({ writer: sessions, clock: systemClock });
  const secretChecks = new SecretChecks({
    source: credentials.source,
    serves: ({ repositoryUrl }) => (repositoryUrl !== undefined) === (process === "edge"),
    onRead: reports.note,
    clock: systemClock,
  });
  return {
    sessions,
    vault: credentials.vault,
    /** For the server, besides what is its own. */
    deps: {
      issuer,
      leases: sessions,
      snapshots: noticed(sessions, secretChecks),
      credentials: credentials.source,
      onCredentialRead: reports.note,
      inClusterServers,
      maxInFlight,
      requestsPerMinute,
      audit,
      ...common,
    },
    /** Serves until `signal` aborts, then closes the server first and the rest when it is closed. */
    serve: async (
      server: Served,
      { listen, close }: { listen: () => Promise<number>; close: () => Promise<void> },
      signal: AbortSignal,
    ): Promise<void> => {
      const health = createHealthServer({
        registry,
        checks: { issuer: () => server.readiness(), "session store": () => storeCheck.problem() },
      });
      await health.listen({ host: config.healthHost, port: config.healthPort });
      const port = await listen();
      logger.info({ port, healthPort: config.healthPort }, `${process} listening`);
      const served = new AbortController();
      const auditing = audit.run(served.signal);
      const checking = storeCheck.run(served.signal);
      const looking = secretChecks.run(served.signal);
      await loadKeys(server, logger, signal);
      await aborted(signal);
      await close();
      served.abort();
      await Promise.all([auditing, checking, looking]);
      await health.close();
      sessions.close();
      await Promise.all([issuer.close(), credentials.close()]);
    },
  };
}

/** What is read of a session is checked from then on. */
function noticed(snapshots: SnapshotReader, checks: SecretChecks): SnapshotReader {
  return {
    readSnapshot: async (tenant, sessionId) => {
      const snapshot = await snapshots.readSnapshot(tenant, sessionId);
      if (snapshot !== null) checks.served(snapshot);
      return snapshot;
    },
  };
}

/** Until it succeeds: the operator may come up after us. */
async function loadKeys(server: Served, logger: Logger, signal: AbortSignal): Promise<void> {
  for (let attempt = 1; !signal.aborted; attempt += 1) {
    try {
      await server.loadKeys();
      if (attempt > 1) logger.info({ attempt }, "issuer reached");
      return;
    } catch (error) {
      if (attempt === 1) logger.warn({ err: describeError(error) }, "issuer not reached yet");
    }
    const delay = backoffMs(attempt, { baseMs: 200, maxMs: 5000 }, systemRng);
    // Rejects when the process is to stop; the loop's condition sees that.
    await systemClock.sleep(delay, signal).catch(() => {});
  }
}
