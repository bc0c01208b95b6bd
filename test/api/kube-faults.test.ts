/** What the kernel does when the way to a real API server is bad. */
import { readFile } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "@jest/globals";
import {
  isAlreadyExists,
  isOutcomeUnknown,
  isTooManyRequests,
  isUnavailable,
} from "../../src/kube/errors.ts";
import { LiveClient } from "../../src/kube/live-client.ts";
import { createKubeMetrics } from "../../src/kube/metrics.ts";
import { type ConfigMap, configMaps } from "../../src/kube/resources.ts";
import { WatchingInformer } from "../../src/kube/watching-informer.ts";
import { systemClock } from "../../src/runtime/clock.ts";
import { silentLogger } from "../../src/runtime/logger.ts";
import { Registry } from "../../src/runtime/metrics.ts";
import { systemRng } from "../../src/runtime/rng.ts";
import { type ApiServer, startApiServer } from "../cluster/api-server.ts";
import { eventually } from "../eventually.ts";
import { FaultProxy, isListOf, isWatchOf } from "../servers/fault-proxy.ts";

let server: ApiServer;
let proxy: FaultProxy;
let client: LiveClient;
let registry: Registry;
const stops: AbortController[] = [];

beforeAll(async () => {
  server = await startApiServer();
}, 300_000);
afterAll(() => server.stop());

beforeEach(async () => {
  proxy = await FaultProxy.start({
    url: server.url,
    ca: await readFile(server.caPath),
    cert: await readFile(server.adminCertPath),
    key: await readFile(server.adminKeyPath),
  });
  registry = new Registry();
  client = new LiveClient({
    config: { from: "text", text: proxy.kubeconfig },
    userAgent: "drover-test/1",
    clock: systemClock,
    rng: systemRng,
    metrics: createKubeMetrics(registry).restClient,
    logger: silentLogger,
  });
});
afterEach(async () => {
  for (const stop of stops.splice(0)) stop.abort();
  client.close();
  await proxy.close();
});

const config = (name: string, value = "1"): ConfigMap => ({
  apiVersion: "v1",
  kind: "ConfigMap",
  metadata: { name, namespace: "default" },
  data: { value },
});

async function startInformer() {
  const deps = { client, clock: systemClock, rng: systemRng, logger: silentLogger };
  const project = (object: ConfigMap) => object.data?.["value"] ?? "";
  const informer = new WatchingInformer(deps, { type: configMaps, project });
  const stop = new AbortController();
  stops.push(stop);
  const over = informer.run(stop.signal);
  await informer.synced(AbortSignal.timeout(30_000));
  await eventually("the watch is open", () => proxy.requests.some(isWatchOf("configmaps")));
  return { informer, stop, over };
}

/** Writes past the proxy, as another client would. */
async function kubectl(...args: string[]): Promise<void> {
  const { code, stderr } = await server.kubectl(args);
  if (code !== 0) throw new Error(stderr);
}

describe("an informer", () => {
  it("after a cut of 8 s has called a bounded number of times, then follows by one watch", async () => {
    const { informer } = await startInformer();
    const cutAt = Date.now();
    const before = proxy.connections;
    proxy.cut();
    await kubectl("create", "configmap", "cut", "--from-literal=value=7");
    await sleep(8_000);
    const during = proxy.connections - before;
    proxy.restore();
    const restoredAt = Date.now();
    await eventually("the change is seen", () => informer.get("default/cut") === "7");
    await sleep(3_000);

    expect(during).toBeGreaterThan(0);
    expect(during).toBeLessThan(15);
    expect(proxy.since(cutAt, isListOf("configmaps"))).toHaveLength(0);
    expect(proxy.since(restoredAt, isWatchOf("configmaps"))).toHaveLength(1);
  });

  it("403 for a while is backed off, then followed by one list and one watch", async () => {
    const { informer } = await startInformer();
    const from = Date.now();
    proxy.fault({
      matches: ({ path }) => path.includes("/configmaps"),
      times: 4,
      reply: { status: 403 },
    });
    proxy.cut();
    proxy.restore();
    await eventually("the faults are used up", () => proxy.since(from).length >= 6);
    await kubectl("create", "configmap", "after-403", "--from-literal=value=8");
    await eventually("the change is seen", () => informer.get("default/after-403") === "8");
    await sleep(2_000);

    expect(proxy.since(from, isListOf("configmaps")).length).toBeLessThanOrEqual(4);
    expect(proxy.since(from, isWatchOf("configmaps")).length).toBeLessThanOrEqual(3);
    expect(proxy.since(from).length).toBe(6);
  });

  it("a restart of the API server is survived; what happened meanwhile is told", async () => {
    await kubectl("create", "configmap", "doomed", "--from-literal=value=1");
    const { informer } = await startInformer();
    await eventually("the object is seen", () => informer.get("default/doomed") !== undefined);
    const from = Date.now();
    await server.restart();
    await kubectl("delete", "configmap", "doomed");
    await kubectl("create", "configmap", "fresh", "--from-literal=value=2");
    await eventually(
      "both changes are seen",
      () => informer.get("default/doomed") === undefined && informer.get("default/fresh") === "2",
    );
    await sleep(1_000);

    expect(proxy.since(from).length).toBeLessThan(25);
  }, 120_000);

  it("410 for its version leads to a list that tells what was deleted", async () => {
    await kubectl("create", "configmap", "expired", "--from-literal=value=1");
    const { informer } = await startInformer();
    await eventually("the object is seen", () => informer.get("default/expired") !== undefined);
    const from = Date.now();
    const expired = { kind: "Status", code: 410, reason: "Expired", message: "too old" };
    proxy.fault({
      matches: isWatchOf("configmaps"),
      times: 1,
      reply: { status: 200, body: { type: "ERROR", object: expired } },
    });
    proxy.cut();
    await kubectl("delete", "configmap", "expired");
    proxy.restore();
    await eventually("the deletion is seen", () => informer.get("default/expired") === undefined);

    expect(proxy.since(from, isListOf("configmaps"))).toHaveLength(1);
  });

  it("stops while its connection is silent", async () => {
    const { stop, over } = await startInformer();
    proxy.cut("silent");
    stop.abort();

    expect(await over).toBeUndefined();
  });
});

describe("a call", () => {
  it("429 with Retry-After is sent again after that time, and counted", async () => {
    proxy.fault({
      matches: ({ method }) => method === "POST",
      times: 2,
      reply: { status: 429, headers: { "retry-after": "1" } },
    });
    const from = Date.now();

    const created = await client.create(configMaps, config("patient"));

    expect(created.metadata.uid).toBeDefined();
    expect(Date.now() - from).toBeGreaterThanOrEqual(1_900);
    const text = await registry.metrics();
    expect(text).toMatch(/rest_client_requests_total\{code="429",method="POST",host="127.*"\} 2/);
    expect(text).toMatch(/rest_client_requests_total\{code="201",method="POST",host="127.*"\} 1/);
    expect(text).toMatch(/rest_client_request_retries_total\{code="429",verb="POST".*\} 2/);
  });

  it("429 without end is given up after three more tries", async () => {
    const reply = { status: 429, headers: { "retry-after": "0" } };
    proxy.fault({ matches: () => true, times: 99, reply });

    const error: unknown = await client
      .create(configMaps, config("never"))
      .catch((e: unknown) => e);

    expect(isTooManyRequests(error)).toBe(true);
    expect(proxy.requests).toHaveLength(4);
  });

  it("a long Retry-After is left to the caller, with its time", async () => {
    const reply = { status: 429, headers: { "retry-after": "60" } };
    proxy.fault({ matches: () => true, times: 99, reply });

    const error: unknown = await client
      .create(configMaps, config("later"))
      .catch((e: unknown) => e);

    expect(error).toMatchObject({ status: 429, retryAfterMs: 60_000 });
    expect(proxy.requests).toHaveLength(1);
  });

  it.each([
    { name: "answered 504", reply: { status: 504 } as const },
    { name: "cut before the answer", reply: "cut" as const },
  ])(
    "a create that went through and was $name is not sent again: its outcome is unknown",
    async ({ name, reply }) => {
      const object = config(`unknown-${name.length}`);
      proxy.fault({ matches: ({ method }) => method === "POST", times: 1, forward: true, reply });

      const first: unknown = await client.create(configMaps, object).catch((e: unknown) => e);
      const posts = proxy.requests.filter(({ method }) => method === "POST");
      const second: unknown = await client.create(configMaps, object).catch((e: unknown) => e);

      expect(posts).toHaveLength(1);
      expect(isOutcomeUnknown(first)).toBe(true);
      expect(isAlreadyExists(second)).toBe(true);
    },
  );

  it("has a deadline when nobody answers", async () => {
    proxy.cut("silent");
    const from = Date.now();

    const error: unknown = await client
      .get(configMaps, config("a").metadata, { timeoutMs: 500 })
      .catch((e: unknown) => e);

    expect(error).toMatchObject({ reason: "Timeout", code: "TIMEOUT" });
    expect(isUnavailable(error)).toBe(true);
    expect(Date.now() - from).toBeLessThan(10_000);
  });

  it("a watch that falls silent is noticed", async () => {
    const watching = client.watch(configMaps, {
      resourceVersion: (await client.list(configMaps)).resourceVersion,
      timeoutSeconds: 60,
      silenceMs: 700,
      signal: AbortSignal.timeout(30_000),
    });
    const read = async () => {
      for await (const event of watching) void event;
    };

    await expect(read()).rejects.toMatchObject({ reason: "Timeout" });
  });

  it("the end that the server sets to a watch ends it without an error", async () => {
    const watching = client.watch(configMaps, {
      resourceVersion: (await client.list(configMaps)).resourceVersion,
      timeoutSeconds: 1,
      silenceMs: 30_000,
      signal: AbortSignal.timeout(30_000),
    });
    const types: string[] = [];
    for await (const event of watching) types.push(event.type);

    expect(types.every((type) => type === "BOOKMARK")).toBe(true);
  });
});
