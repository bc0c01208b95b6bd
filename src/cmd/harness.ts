import { lookup } from "node:dns/promises";
import { AnthropicModel } from "../harness/anthropic-model.ts";
import { harnessConfig } from "../harness/config.ts";
import { EdgeAddress } from "../harness/edge-address.ts";
import { SidecarMcpHands } from "../harness/mcp-hands.ts";
import { createHarnessMetrics } from "../harness/metrics.ts";
import { patientFetch } from "../harness/patient-fetch.ts";
import { SidecarTokens } from "../harness/tokens.ts";
import { createWorker } from "../harness/worker.ts";
import { createSandboxClient } from "../protocol/sandbox-client.ts";
import { systemClock as clock } from "../runtime/clock.ts";
import { loadConfig } from "../runtime/config.ts";
import { runGroup } from "../runtime/group.ts";
import { createHealthServer } from "../runtime/health.ts";
import { createLogger } from "../runtime/logger.ts";
import { createRegistry } from "../runtime/metrics.ts";
import { runProcess } from "../runtime/process.ts";
import { systemMemory } from "../runtime/process-memory.ts";
import { systemRng as rng } from "../runtime/rng.ts";
import { StoreCheck } from "../runtime/store-check.ts";
import { VERSION } from "../runtime/version.ts";
import { parseCommitMode } from "../sessions/commit-mode.ts";
import { createSessionLogMetrics } from "../sessions/metrics.ts";
import { probeRedis } from "../sessions/redis/probe.ts";
import { connectRedisSessionStore } from "../sessions/redis/redis-session-store.ts";
import { redisAddress } from "./redis-address.ts";

/** `drover harness`: one worker on Redis, its model and tools behind the sidecar. */
export async function harnessMain(
  env: Readonly<Record<string, string | undefined>>,
  signal: AbortSignal,
): Promise<number> {
  const config = loadConfig(harnessConfig, env);
  const logger = createLogger({ level: config.logLevel, process: "harness" });
  const registry = createRegistry("harness", VERSION);
  const address = redisAddress(config);
  const commit = parseCommitMode(config.redisCommit);
  const store = await connectRedisSessionStore({
    ...address,
    commit,
    pools: [{ code: config.poolCode, partitions: config.partitions }],
    timings: { ttlMs: config.leaseTtlMs, renewMs: config.leaseRenewMs, pollMs: config.pollMs },
    clock,
    rng,
    logger,
    metrics: createSessionLogMetrics(registry),
  });
  const queue = store.queue(config.workerId);
  const { proxyUrl: sidecarUrl, edgeUrl, mcpCallMs: callMs } = config;
  const mcpFetch = patientFetch(2 * callMs);
  const worker = createWorker({
    queue,
    model: new AnthropicModel({ baseUrl: `${sidecarUrl}/model`, clock, fetch }),
    tokens: new SidecarTokens({ sidecarUrl, clock, fetch }),
    sandboxClient: (token) => createSandboxClient({ fetch, clock, logger, token }),
    edge: edgeUrl === undefined ? undefined : new EdgeAddress({ url: edgeUrl, lookup }),
    mcp: (tokens) =>
      new SidecarMcpHands({ sidecarUrl, tokens, clock, fetch: mcpFetch, logger, callMs }),
    memory: systemMemory,
    clock,
    rng,
    logger,
    metrics: createHarnessMetrics(registry),
    options: { concurrency: config.concurrency, graceMs: config.graceMs },
  });
  const probe = async () => {
    await probeRedis(address, { commit, poolCode: config.poolCode });
  };
  const storeCheck = new StoreCheck({ ask: () => queue.workers(), probe, clock, logger });
  const health = createHealthServer({
    registry,
    checks: {
      worker: () => (worker.state === "running" ? undefined : `worker is ${worker.state}`),
      store: () => storeCheck.problem(),
    },
  });
  await health.listen({ host: config.healthHost, port: config.healthPort });
  try {
    await runGroup([storeCheck, worker], signal, logger);
  } finally {
    await queue.close();
    await store.close();
    await health.close();
  }
  return 0;
}

if (import.meta.main) {
  await runProcess((signal) => harnessMain(process.env, signal));
}
