import { createHarnessMetrics } from "../../harness/metrics.ts";
import { createKubeMetrics } from "../../kube/metrics.ts";
import { createOperatorMetrics, observeSessions } from "../../operator/metrics.ts";
import { createProxyMetrics, EDGE_ROLES } from "../../proxy/metrics.ts";
import { createRegistry, type Registry } from "../../runtime/metrics.ts";
import { createSandboxMetrics } from "../../sandbox/metrics.ts";
import { createScriptedModelMetrics } from "../../scripted-model/metrics.ts";
import { createSessionLogMetrics } from "../../sessions/metrics.ts";

/** What each process registers, as its file in `cmd/` does. */
const PROCESSES: Readonly<Record<string, (registry: Registry) => void>> = {
  operator(registry) {
    createKubeMetrics(registry);
    createOperatorMetrics(registry);
    observeSessions(registry, { list: () => [] }, () => 0);
  },
  harness(registry) {
    createHarnessMetrics(registry);
    createSessionLogMetrics(registry);
  },
  proxy: (registry) => void createProxyMetrics(registry),
  edge: (registry) => void createProxyMetrics(registry, EDGE_ROLES),
  sandbox: createSandboxMetrics,
  "scripted-model": createScriptedModelMetrics,
};

export const METRIC_PROCESSES = Object.keys(PROCESSES);

export interface MetricFacts {
  name: string;
  type: string;
  help: string;
  labels: readonly string[];
}

/** The metrics of a process, Node's own included, by name. */
export function metricsOfProcess(process: string): MetricFacts[] {
  const registry = createRegistry(process, "0");
  PROCESSES[process]?.(registry);
  // The declared type leaves out what every metric carries.
  const metrics: readonly object[] = registry.getMetricsAsArray();
  return metrics
    .map((metric) => ({
      name: textOf(metric, "name"),
      type: textOf(metric, "type"),
      help: textOf(metric, "help"),
      labels: "labelNames" in metric && Array.isArray(metric.labelNames) ? metric.labelNames : [],
    }))
    .toSorted((a, b) => (a.name < b.name ? -1 : 1));
}

function textOf(metric: object, key: string): string {
  return String(Reflect.get(metric, key));
}
