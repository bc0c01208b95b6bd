import type { CredentialSource } from "../credentials/credential-source.ts";
import type { TokenIssuer } from "../operator/issuer/issuer.ts";
import type { AuditLog } from "../proxy/audit.ts";
import { createEdgeServer } from "../proxy/edge/server.ts";
import { REQUESTS_PER_MINUTE } from "../proxy/limits.ts";
import type { ProxyMetrics } from "../proxy/metrics.ts";
import type { Clock } from "../runtime/clock.ts";
import type { Logger } from "../runtime/logger.ts";
import type { SessionStore } from "../sessions/session-log.ts";

export interface LocalEdgeDeps {
  issuer: Pick<TokenIssuer, "keys">;
  store: Pick<SessionStore, "ports">;
  credentials: CredentialSource;
  /** `host:port` of git hosts that may be private or without TLS. */
  localServers: readonly string[];
  audit: AuditLog;
  clock: Clock;
  logger: Logger;
  metrics: ProxyMetrics;
}

export interface LocalEdge {
  url: string;
  close(): Promise<void>;
}

/** The edge on loopback: sandboxes of local mode reach their repositories as those in a cluster do. */
export async function startLocalEdge(deps: LocalEdgeDeps): Promise<LocalEdge> {
  const { issuer, store, credentials, localServers, audit, clock, logger, metrics } = deps;
  const edge = createEdgeServer({
    issuer,
    bindings: store.ports,
    leases: store.ports,
    snapshots: store.ports,
    credentials,
    onCredentialRead: () => {},
    inClusterServers: localServers,
    maxInFlight: 256,
    requestsPerMinute: REQUESTS_PER_MINUTE,
    audit,
    clock,
    logger,
    metrics,
  });
  const port = await edge.listen({ host: "127.0.0.1", port: 0 });
  await edge.loadKeys();
  // Its sandboxes end with this process: nothing is worth waiting for.
  return { url: `http://127.0.0.1:${port}`, close: () => edge.close(AbortSignal.abort()) };
}
