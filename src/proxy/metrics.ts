import { codeOf, hasCode, isAbort } from "../runtime/errors.ts";
import { Counter, Gauge, Histogram, type Registry } from "../runtime/metrics.ts";

/** Which part of the proxy served a request, and where it went: closed sets, never a host name. */
export const DESTINATIONS = {
  tokens: "issuer",
  model: "model",
  mcp: "mcp_server",
  git: "git_host",
} as const;
export type Role = keyof typeof DESTINATIONS;
export const SIDECAR_ROLES: readonly Role[] = ["tokens", "model", "mcp"];
export const EDGE_ROLES: readonly Role[] = ["git"];

/**
 * `ok`: passed on and answered. `refused`: our policy, a limit of size, or a bad request.
 * `unauthenticated`: the token or lease. `upstream_error`: the other side answered badly.
 * `unavailable`: something could not be reached or was late. `aborted`: the caller went away.
 */
const OUTCOMES = [
  "ok",
  "refused",
  "unauthenticated",
  "upstream_error",
  "unavailable",
  "aborted",
  "error",
] as const;
export type Outcome = (typeof OUTCOMES)[number];

export type ProxyMetrics = ReturnType<typeof createProxyMetrics>;

export function createProxyMetrics(registry: Registry, roles = SIDECAR_ROLES) {
  const registers = [registry];
  const requests = new Counter({
    name: "drover_proxy_requests_total",
    help: "Requests of harness or sandbox, by role, where they went and how they ended.",
    labelNames: ["role", "destination", "outcome"],
    registers,
  });
  for (const role of roles) {
    for (const outcome of OUTCOMES) {
      requests.inc({ role, destination: DESTINATIONS[role], outcome }, 0);
    }
  }
  return {
    requests,
    duration: new Histogram({
      name: "drover_proxy_request_duration_seconds",
      help: "From the request's arrival to the end of its answer.",
      labelNames: ["role"],
      buckets: [0.005, 0.02, 0.1, 0.5, 2, 10, 30, 120, 600],
      registers,
    }),
    credentialReads: new Counter({
      name: "drover_credential_reads_total",
      help: "Reads of a credential from where it is kept.",
      labelNames: ["source", "outcome"],
      registers,
    }),
    vaultPodIdentity: new Gauge({
      name: "drover_vault_pod_identity",
      help: "1 where credentials of sessions are read from the vault as this pod: the fallback.",
      registers,
    }),
    unserved: createUnserved(registers),
    auditRecords: new Counter({
      name: "drover_proxy_audit_records_total",
      help: "Records of the audit log; those that wait are written later, those lost never.",
      labelNames: ["outcome"],
      registers,
    }),
    toolDrift: new Counter({
      name: "drover_proxy_tool_drift_total",
      help: "Tools left out of a list: not as the agent revision saw them first, or past a limit.",
      registers,
    }),
    serverRequests: new Counter({
      name: "drover_proxy_server_requests_total",
      help: "Requests that MCP servers made of their clients (sampling, roots); all were refused.",
      registers,
    }),
    redactions: new Counter({
      name: "drover_proxy_redactions_total",
      help: "Credential values that were taken out of an answer.",
      labelNames: ["role"],
      registers,
    }),
  };
}

/** Why a request got an answer before it was clear which role it is for. */
export const UNSERVED = [
  "no_route",
  "not_http",
  "headers_too_large",
  "late",
  "too_many_connections",
] as const;

function createUnserved(registers: Registry[]) {
  const unserved = new Counter({
    name: "drover_proxy_unserved_requests_total",
    help: "Requests that were refused before any role saw them.",
    labelNames: ["reason"],
    registers,
  });
  for (const reason of UNSERVED) unserved.inc({ reason }, 0);
  return unserved;
}

const OUTCOME_BY_CODE: Readonly<Record<string, Outcome>> = {
  UNAUTHENTICATED: "unauthenticated",
  SESSION_LEASE_LOST: "unauthenticated",
  SESSION_CLOSED: "unauthenticated",
  SESSION_NOT_FOUND: "unauthenticated",
  INPUT_INVALID: "refused",
  INPUT_TOO_LARGE: "refused",
  FORBIDDEN: "refused",
  NOT_FOUND: "refused",
  ADDRESS_REFUSED: "refused",
  CREDENTIAL_NOT_FOUND: "refused",
  FOREIGN_CREDENTIAL: "refused",
  LIMIT_EXCEEDED: "refused",
  UPSTREAM_REFUSED: "upstream_error",
  UNAVAILABLE: "unavailable",
  TIMEOUT: "unavailable",
  CREDENTIAL_UNAVAILABLE: "unavailable",
  REDIS_UNREACHABLE: "unavailable",
};

export function outcomeOf(error: unknown): Outcome {
  if (isAbort(error)) return "aborted";
  return OUTCOME_BY_CODE[codeOf(error) ?? ""] ?? "error";
}

/** The outcome word for a failed credential read. */
export function readOutcome(error: unknown): "not_found" | "unavailable" {
  return hasCode(error, "CREDENTIAL_NOT_FOUND") ? "not_found" : "unavailable";
}
