import { codeOf, hasCode, isAbort } from "../runtime/errors.ts";
import { Counter, Histogram, type Registry } from "../runtime/metrics.ts";

/** Which part of the proxy served a request, and where it went: closed sets, never a host name. */
export const DESTINATIONS = { tokens: "issuer", model: "model", mcp: "mcp_server" } as const;
export type Role = keyof typeof DESTINATIONS;

/**
 * `ok`: passed on and answered. `refused`: our policy, a limit of size, or a bad request.
 * `unauthenticated`: the token or lease. `upstream_error`: the other side answered badly.
 * `unavailable`: something could not be reached or was late. `aborted`: the harness went away.
 */
export const OUTCOMES = [
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

export function createProxyMetrics(registry: Registry) {
  const registers = [registry];
  const requests = new Counter({
    name: "drover_proxy_requests_total",
    help: "Requests of the harness, by role, where they went and how they ended.",
    labelNames: ["role", "destination", "outcome"],
    registers,
  });
  for (const [role, destination] of Object.entries(DESTINATIONS)) {
    for (const outcome of OUTCOMES) requests.inc({ role, destination, outcome }, 0);
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
    redactions: new Counter({
      name: "drover_proxy_redactions_total",
      help: "Credential values that were taken out of an answer.",
      labelNames: ["role"],
      registers,
    }),
  };
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
