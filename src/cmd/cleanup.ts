import { z } from "zod";
import { LiveClient } from "../kube/live-client.ts";
import { createKubeMetrics } from "../kube/metrics.ts";
import { cleanUp } from "../operator/cleanup.ts";
import { systemClock } from "../runtime/clock.ts";
import { loadConfig } from "../runtime/config.ts";
import { createLogger } from "../runtime/logger.ts";
import { createRegistry } from "../runtime/metrics.ts";
import { runProcess } from "../runtime/process.ts";
import { systemRng } from "../runtime/rng.ts";

/** Settings of the uninstall hook. */
export const cleanupConfig = z.object({
  namespace: z.string().min(1).meta({
    env: "DROVER_NAMESPACE",
    description: "Namespace in which Drover is installed.",
  }),
  operator: z.string().min(1).default("drover-operator").meta({
    env: "DROVER_OPERATOR_DEPLOYMENT",
    description: "Name of the operator's Deployment, which is scaled to 0 first.",
  }),
  kubeconfig: z.string().min(1).optional().meta({
    env: "DROVER_KUBECONFIG",
    description: "Kubeconfig file; the pod's own service account when absent.",
  }),
  logLevel: z.enum(["debug", "info", "warn", "error", "silent"]).default("info").meta({
    env: "DROVER_LOG_LEVEL",
    description: "Least severe level that is logged.",
  }),
});

/** `drover cleanup`: removes what the operator made, before an uninstall. */
export async function cleanupMain(
  env: Readonly<Record<string, string | undefined>>,
  signal: AbortSignal,
): Promise<number> {
  const config = loadConfig(cleanupConfig, env);
  const logger = createLogger({ level: config.logLevel, process: "cleanup" });
  const client = new LiveClient({
    clock: systemClock,
    rng: systemRng,
    config:
      config.kubeconfig === undefined
        ? { from: "in-cluster" }
        : { from: "file", path: config.kubeconfig },
    userAgent: "drover-cleanup/0.1.0",
    metrics: createKubeMetrics(createRegistry("cleanup", "0.1.0")).restClient,
  });
  const { namespace, operator } = config;
  await cleanUp({ client, clock: systemClock, logger, namespace, operator }, signal);
  client.close();
  return 0;
}

if (import.meta.main) {
  await runProcess((signal) => cleanupMain(process.env, signal));
}
