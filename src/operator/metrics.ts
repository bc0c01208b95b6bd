import { SESSION_STATES } from "../api/agent-session.ts";
import type { Informer } from "../kube/informer.ts";
import { Counter, Gauge, Histogram, type Registry } from "../runtime/metrics.ts";
import type { AgentSession } from "./kinds.ts";

/**
 * The operator's own metrics (docs/design/operations.md#metrics). Labels are from closed sets: no
 * id, no name.
 */
export interface OperatorMetrics {
  sessionsCreated: Counter<"source">;
  sessionEnds: Counter<"reason">;
  sandboxProvisionSeconds: Histogram<"hit">;
  sandboxLost: Counter<"reason">;
  tokensIssued: Counter<"outcome">;
}

const END_REASONS = ["EndTurn", "Interrupted", "Failed", "DeadlineExceeded", "Stopped"] as const;

const SANDBOX_LOST_REASONS = [
  "ImagePullFailed",
  "Unschedulable",
  "QuotaExceeded",
  "PodRefused",
  "ConfigError",
  "CrashLoop",
  "SetupFailed",
  "ExitedEarly",
  "OutOfMemory",
  "Evicted",
  "PodDeleted",
  "PodFailed",
  "NodeLost",
  "StartDeadlineExceeded",
] as const;

export type SandboxLostReason = (typeof SANDBOX_LOST_REASONS)[number];

export function createOperatorMetrics(registry: Registry): OperatorMetrics {
  const registers = [registry];
  const metrics: OperatorMetrics = {
    sessionsCreated: new Counter({
      name: "drover_sessions_created_total",
      help: "Sessions whose log was made, by source (manifest, api).",
      labelNames: ["source"] as const,
      registers,
    }),
    sessionEnds: new Counter({
      name: "drover_session_end_total",
      help: "Sessions that became Completed, by the reason of the condition.",
      labelNames: ["reason"] as const,
      registers,
    }),
    sandboxProvisionSeconds: new Histogram({
      name: "drover_sandbox_provision_duration_seconds",
      help: "From the operator's first look at a request to a ready sandbox, by hit (warm, cold).",
      labelNames: ["hit"] as const,
      buckets: [0.25, 0.5, 1, 2, 3, 5, 8, 13, 21, 34, 60, 120, 300],
      registers,
    }),
    sandboxLost: new Counter({
      name: "drover_sandbox_lost_total",
      help: "Sandboxes that could not be made or went away, by reason.",
      labelNames: ["reason"] as const,
      registers,
    }),
    tokensIssued: new Counter({
      name: "drover_issuer_tokens_total",
      help: "Requests for tokens of harness pods, by outcome (ok, refused).",
      labelNames: ["outcome"] as const,
      registers,
    }),
  };
  for (const outcome of ["ok", "refused"]) metrics.tokensIssued.inc({ outcome }, 0);
  metrics.sessionsCreated.inc({ source: "manifest" }, 0);
  for (const reason of END_REASONS) metrics.sessionEnds.inc({ reason }, 0);
  for (const reason of SANDBOX_LOST_REASONS) metrics.sandboxLost.inc({ reason }, 0);
  metrics.sandboxProvisionSeconds.zero({ hit: "cold" });
  return metrics;
}

/** Gauges over the AgentSession cache, computed at each scrape; only the leader's are of use in sums. */
export function observeSessions(
  registry: Registry,
  sessions: Pick<Informer<AgentSession>, "list">,
  nowMs: () => number,
): void {
  const registers = [registry];
  const states = new Gauge({
    name: "drover_sessions",
    help: "AgentSession objects by state.",
    labelNames: ["state"] as const,
    registers,
    collect() {
      const counts = new Map<string, number>(SESSION_STATES.map((state) => [state, 0]));
      for (const { status } of sessions.list()) {
        const state = status?.state ?? "Pending";
        counts.set(state, (counts.get(state) ?? 0) + 1);
      }
      for (const [state, count] of counts) states.set({ state }, count);
    },
  });
  const oldest = new Gauge({
    name: "drover_session_oldest_waiting_seconds",
    help: "Longest time for which an AgentSession has been not Ready, by the present reason of that condition.",
    labelNames: ["reason"] as const,
    registers,
    collect() {
      oldest.reset();
      const ages = new Map<string, number>();
      for (const { status } of sessions.list()) {
        const ready = status?.conditions?.find(({ type }) => type === "Ready");
        if (ready === undefined || ready.status === "True") continue;
        const age = (nowMs() - Date.parse(ready.lastTransitionTime)) / 1000;
        ages.set(ready.reason, Math.max(age, ages.get(ready.reason) ?? 0));
      }
      for (const [reason, age] of ages) oldest.set({ reason }, age);
    },
  });
}
