import { SANDBOX_TOOLS } from "../protocol/sandbox-api.ts";
import { Counter, Gauge, Histogram, type Registry } from "../runtime/metrics.ts";

const CALL_SECONDS = [0.005, 0.02, 0.1, 0.5, 2, 10, 30, 120, 600, 3600];
const CALL_OUTCOMES = ["ok", "error", "unknown", "cancelled"] as const;

export type SandboxMetrics = ReturnType<typeof createSandboxMetrics>;

/** Metrics of one daemon; labels come from closed sets. */
export function createSandboxMetrics(registry: Registry) {
  const registers = [registry];
  const calls = new Counter({
    name: "drover_sandbox_calls_total",
    help: "Tool calls that ended, by tool and outcome.",
    labelNames: ["tool", "outcome"],
    registers,
  });
  for (const tool of [...SANDBOX_TOOLS, "other"]) {
    for (const outcome of CALL_OUTCOMES) calls.inc({ tool, outcome }, 0);
  }
  return {
    calls,
    callSeconds: new Histogram({
      name: "drover_sandbox_call_duration_seconds",
      help: "Seconds from start to end of a tool call, by tool.",
      labelNames: ["tool"],
      buckets: CALL_SECONDS,
      registers,
    }),
    running: new Gauge({
      name: "drover_sandbox_calls_running",
      help: "Tool calls that have not ended.",
      registers,
    }),
    outputBytes: new Counter({
      name: "drover_sandbox_output_bytes_total",
      help: "Bytes that tools printed, shown or not.",
      registers,
    }),
    refused: new Counter({
      name: "drover_sandbox_refused_total",
      help: "Requests refused, by error code.",
      labelNames: ["code"],
      registers,
    }),
  };
}

/** The label of a tool name, which comes from a model. */
export function toolLabel(name: string): string {
  return SANDBOX_TOOLS.find((tool) => tool === name) ?? "other";
}
