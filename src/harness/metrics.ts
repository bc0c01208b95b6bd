import { SANDBOX_TOOLS } from "../protocol/sandbox-api.ts";
import { TOOL_OUTCOMES } from "../protocol/session-event.ts";
import { Counter, Gauge, Histogram, type Registry } from "../runtime/metrics.ts";
import { MODEL_ERROR_KINDS } from "./model.ts";

const TOOL_LABELS = [...SANDBOX_TOOLS, "session_events", "mcp", "custom", "other"] as const;
const TURN_OUTCOMES = [
  "end_turn",
  "interrupted",
  "requires_action",
  "retries_exhausted",
  "refusal",
] as const;

const LONG = [0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800];
const SHORT = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30];

/**
 * What a harness counts (docs/design/operations.md#metrics); every series exists from the start
 * with value 0.
 */
export type HarnessMetrics = ReturnType<typeof createHarnessMetrics>;

export function createHarnessMetrics(registry: Registry) {
  const metrics = {
    ...workerMetrics(registry),
    ...modelMetrics(registry),
    ...toolMetrics(registry),
  };
  for (const outcome of ["fresh", "takeover"]) metrics.claims.inc({ outcome }, 0);
  for (const cause of ["lease_expired"]) metrics.takeovers.inc({ cause }, 0);
  for (const outcome of ["released", "handed_over", "shed", "lost", "failed"]) {
    metrics.sessionEnds.inc({ outcome }, 0);
  }
  metrics.modelRequests.inc({ outcome: "ok", error_type: "" }, 0);
  metrics.modelRequests.inc({ outcome: "interrupted", error_type: "" }, 0);
  for (const kind of MODEL_ERROR_KINDS) {
    metrics.modelRequests.inc({ outcome: "error", error_type: kind }, 0);
  }
  for (const type of ["input", "output", "cache_read", "cache_write"]) {
    metrics.modelTokens.inc({ type }, 0);
  }
  for (const tool of TOOL_LABELS) {
    for (const outcome of [...TOOL_OUTCOMES, "error"]) metrics.toolCalls.inc({ tool, outcome }, 0);
  }
  for (const outcome of TURN_OUTCOMES) metrics.turnDuration.zero({ outcome });
  return metrics;
}

/** Tool names come from models and servers: only known ones become labels. */
export function toolLabel(target: string, name: string): string {
  if (target === "mcp" || target === "custom") return target;
  return TOOL_LABELS.find((label) => label === name) ?? "other";
}

function workerMetrics(registry: Registry) {
  const registers = [registry];
  return {
    claims: new Counter({
      name: "drover_harness_claims_total",
      help: "Sessions claimed, by outcome: fresh, or takeover of a lease that ran out.",
      labelNames: ["outcome"],
      registers,
    }),
    takeovers: new Counter({
      name: "drover_harness_takeovers_total",
      help: "Sessions taken over from another worker, by cause.",
      labelNames: ["cause"],
      registers,
    }),
    sessionEnds: new Counter({
      name: "drover_harness_session_ends_total",
      help: "How this worker's hold of a session ended, by outcome; shed: it made room for others.",
      labelNames: ["outcome"],
      registers,
    }),
    activeSessions: new Gauge({
      name: "drover_harness_active_sessions",
      help: "Sessions this worker holds.",
      registers,
    }),
    capacity: new Gauge({
      name: "drover_harness_capacity",
      help: "Sessions this worker can hold.",
      registers,
    }),
    memoryBudget: new Gauge({
      name: "drover_harness_memory_budget_bytes",
      help: "Bytes of events that all sessions of this worker may keep together.",
      registers,
    }),
    memoryHeld: new Gauge({
      name: "drover_harness_memory_held_bytes",
      help: "Bytes of events that the sessions of this worker keep, as estimated.",
      registers,
    }),
    state: new Gauge({
      name: "drover_harness_state",
      help: "1 for the worker's state, 0 for the others.",
      labelNames: ["state"],
      registers,
    }),
    handoverDuration: new Histogram({
      name: "drover_harness_handover_duration_seconds",
      help: "Time from the request to stop until a session was handed over.",
      buckets: SHORT,
      registers,
    }),
    sessionStart: new Histogram({
      name: "drover_session_start_duration_seconds",
      help: "Time from the creation of a session to its first model request.",
      buckets: [...SHORT, 60, 120],
      registers,
    }),
    turnDuration: new Histogram({
      name: "drover_turn_duration_seconds",
      help: "Time from the claim or the last idle to the next idle, by outcome.",
      labelNames: ["outcome"],
      buckets: LONG,
      registers,
    }),
  };
}

function modelMetrics(registry: Registry) {
  const registers = [registry];
  return {
    modelRequests: new Counter({
      name: "drover_model_requests_total",
      help: "Model requests by outcome and, for errors, their type.",
      labelNames: ["outcome", "error_type"],
      registers,
    }),
    modelDuration: new Histogram({
      name: "drover_model_request_duration_seconds",
      help: "Time of a model request from sending to the end of its stream.",
      buckets: LONG,
      registers,
    }),
    modelFirstChunk: new Histogram({
      name: "drover_model_first_chunk_seconds",
      help: "Time from sending a model request to its first text.",
      buckets: LONG,
      registers,
    }),
    modelTokens: new Counter({
      name: "drover_model_tokens_total",
      help: "Tokens by type, as the model's endpoint counts them.",
      labelNames: ["type"],
      registers,
    }),
    modelRetryWait: new Counter({
      name: "drover_model_retry_wait_seconds_total",
      help: "Time spent waiting before a model request was tried again.",
      registers,
    }),
    modelInflight: new Gauge({
      name: "drover_model_inflight",
      help: "Model requests that are running.",
      registers,
    }),
  };
}

function toolMetrics(registry: Registry) {
  const registers = [registry];
  return {
    toolCalls: new Counter({
      name: "drover_tool_calls_total",
      help: "Finished tool calls by tool and outcome; `error` is a known outcome that is an error.",
      labelNames: ["tool", "outcome"],
      registers,
    }),
    toolDuration: new Histogram({
      name: "drover_tool_call_duration_seconds",
      help: "Time of a tool call, waiting for its sandbox included.",
      labelNames: ["tool"],
      buckets: LONG,
      registers,
    }),
    sandboxWait: new Histogram({
      name: "drover_sandbox_wait_seconds",
      help: "Time a session waited for a sandbox it asked for, by whether it stood ready.",
      labelNames: ["hit"],
      buckets: LONG,
      registers,
    }),
  };
}
