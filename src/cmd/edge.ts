import { edgeConfig } from "../proxy/edge/config.ts";
import { createEdgeServer } from "../proxy/edge/server.ts";
import { EDGE_ROLES } from "../proxy/metrics.ts";
import { systemClock } from "../runtime/clock.ts";
import { loadConfig } from "../runtime/config.ts";
import { runProcess } from "../runtime/process.ts";
import { openProxyParts } from "./proxy-parts.ts";

/** Running transfers may end in this time; the pod is given some more (operator/edge/resources.ts). */
const DRAIN_MS = 45_000;

/** `drover edge`: git for sandboxes; adds the credentials that these never see. */
export async function edgeMain(
  env: Readonly<Record<string, string | undefined>>,
  signal: AbortSignal,
): Promise<number> {
  const config = loadConfig(edgeConfig, env);
  const { deps, sessions, serve } = openProxyParts(config, "edge", EDGE_ROLES);
  const edge = createEdgeServer({ ...deps, bindings: sessions });
  const life = {
    listen: async () => await edge.listen(config),
    close: async () => await closeWithin(DRAIN_MS, edge),
  };
  await serve(edge, life, signal);
  return 0;
}

async function closeWithin(
  ms: number,
  server: { close(deadline: AbortSignal): Promise<void> },
): Promise<void> {
  const deadline = new AbortController();
  const stopTimer = systemClock.timer(ms, () => deadline.abort());
  await server.close(deadline.signal);
  stopTimer();
}

if (import.meta.main) {
  await runProcess((signal) => edgeMain(process.env, signal));
}
