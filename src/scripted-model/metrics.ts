import { Counter, type Registry } from "../runtime/metrics.ts";

const OUTCOMES = ["answered", "mismatch", "invalid", "fault", "aborted"] as const;
export type RequestOutcome = (typeof OUTCOMES)[number];

export interface ScriptedModelMetrics {
  requests: Counter<"outcome">;
}

export function createScriptedModelMetrics(registry: Registry): ScriptedModelMetrics {
  const requests = new Counter({
    name: "drover_scripted_model_requests_total",
    help: "Messages API requests by outcome.",
    labelNames: ["outcome"],
    registers: [registry],
  });
  for (const outcome of OUTCOMES) requests.inc({ outcome }, 0);
  return { requests };
}
