/** The only import of the Prometheus client, so that its successor package can take its place. */
import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from "prom-client";

export { Counter, Gauge, Histogram, Registry };

/** A registry with Node's process metrics and `drover_build_info{process,version}` = 1. */
export function createRegistry(process: string, version: string): Registry {
  const registry = new Registry();
  collectDefaultMetrics({ register: registry });
  const info = new Gauge({
    name: "drover_build_info",
    help: "Always 1; labels name the process and its version.",
    labelNames: ["process", "version"],
    registers: [registry],
  });
  info.set({ process, version }, 1);
  return registry;
}
