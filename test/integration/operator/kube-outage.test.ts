import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { afterEach, expect, it } from "@jest/globals";
import { LiveClient } from "../../../src/kube/live-client.ts";
import { createKubeMetrics } from "../../../src/kube/metrics.ts";
import { configMaps, pods, secrets, serviceAccounts } from "../../../src/kube/resources.ts";
import { WatchingInformer } from "../../../src/kube/watching-informer.ts";
import { systemClock } from "../../../src/runtime/clock.ts";
import { createLogger } from "../../../src/runtime/logger.ts";
import { Registry } from "../../../src/runtime/metrics.ts";
import { systemRng } from "../../../src/runtime/rng.ts";
import { Cleanups } from "../../cleanups.ts";
import { eventually } from "../../eventually.ts";

/** What the log of a process says while its API server, a real listener, goes away and comes back. */

const cleanups = new Cleanups();
afterEach(async () => await cleanups.run());

/** Answers every list with nothing, and holds every watch open. */
async function startApi(port: number): Promise<Server> {
  const server = createServer((request, response) => {
    response.writeHead(200, { "content-type": "application/json" });
    if (request.url?.includes("watch=") === true) response.flushHeaders();
    else response.end(JSON.stringify({ metadata: { resourceVersion: "1" }, items: [] }));
  });
  await new Promise<void>((resolve) => server.listen(port, "127.0.0.1", resolve));
  return server;
}

async function stopApi(server: Server): Promise<void> {
  server.closeAllConnections();
  await new Promise((resolve) => server.close(resolve));
}

it("an API server that restarts is one line when it goes and one when it is back, not one for each watch", async () => {
  const first = await startApi(0);
  const { port } = first.address() as AddressInfo;
  const lines: Record<string, unknown>[] = [];
  const logger = createLogger({
    level: "info",
    process: "operator",
    destination: { write: (line) => void lines.push(JSON.parse(line)) },
  });
  const cluster = { server: `http://127.0.0.1:${port}`, "insecure-skip-tls-verify": true };
  const text = JSON.stringify({
    clusters: [{ name: "c", cluster }],
    users: [{ name: "u", user: {} }],
    contexts: [{ name: "x", context: { cluster: "c", user: "u" } }],
    "current-context": "x",
  });
  const client = new LiveClient({
    config: { from: "text", text },
    userAgent: "drover-test/1",
    clock: systemClock,
    rng: systemRng,
    metrics: createKubeMetrics(new Registry()).restClient,
    logger,
  });
  cleanups.add(async () => client.close());
  const deps = { client, clock: systemClock, rng: systemRng, logger };
  const stop = new AbortController();
  const project = () => ({});
  const informers = [
    new WatchingInformer(deps, { type: configMaps, project }),
    new WatchingInformer(deps, { type: pods, project }),
    new WatchingInformer(deps, { type: secrets, project }),
    new WatchingInformer(deps, { type: serviceAccounts, project }),
  ];
  const running = informers.map((informer) => informer.run(stop.signal));
  cleanups.add(async () => {
    stop.abort();
    await Promise.all(running);
  });
  await eventually("the first lists", () => informers.every(({ hasSynced }) => hasSynced));

  await stopApi(first);
  await eventually("the outage in the log", () => lines.length > 0);
  await new Promise((resolve) => setTimeout(resolve, 3000));
  const second = await startApi(port);
  cleanups.add(async () => await stopApi(second));
  await eventually("its end in the log", () => lines.length > 1);

  expect(lines.map(({ level, msg }) => [level, msg])).toEqual([
    ["warn", "kubernetes api not reached; it is tried again"],
    ["info", "kubernetes api reached again"],
  ]);
  expect(lines[0]).toMatchObject({ process: "operator", err: expect.any(String) });
  expect(lines[1]).toMatchObject({ durationMs: expect.any(Number) });
});
