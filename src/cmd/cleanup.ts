import { LiveClient } from "../kube/live-client.ts";
import { createKubeMetrics } from "../kube/metrics.ts";
import { cleanUp } from "../operator/cleanup.ts";
import { cleanupConfig } from "../operator/cleanup-config.ts";
import { systemClock } from "../runtime/clock.ts";
import { loadConfig } from "../runtime/config.ts";
import { createLogger } from "../runtime/logger.ts";
import { createRegistry } from "../runtime/metrics.ts";
import { runProcess } from "../runtime/process.ts";
import { systemRng } from "../runtime/rng.ts";
import { VERSION } from "../runtime/version.ts";

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
    userAgent: `drover-cleanup/${VERSION}`,
    metrics: createKubeMetrics(createRegistry("cleanup", VERSION)).restClient,
    logger,
  });
  const { namespace, operator } = config;
  await cleanUp({ client, clock: systemClock, logger, namespace, operator }, signal);
  client.close();
  return 0;
}

if (import.meta.main) {
  await runProcess((signal) => cleanupMain(process.env, signal));
}
