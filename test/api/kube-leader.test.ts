/** Two operators on one real API server: one leads, one controller works, the other takes over. */
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, it } from "@jest/globals";
import { type Controller, watchObjects, watchOwned } from "../../src/kube/controller.ts";
import { EventRecorder } from "../../src/kube/event-recorder.ts";
import { LeaderElector } from "../../src/kube/leader-election.ts";
import { LiveClient } from "../../src/kube/live-client.ts";
import { Manager } from "../../src/kube/manager.ts";
import { createKubeMetrics } from "../../src/kube/metrics.ts";
import { type ObjectMeta, objectKey, refOf } from "../../src/kube/objects.ts";
import { settled } from "../../src/kube/outcome.ts";
import { applyOwned, ownerReferenceTo } from "../../src/kube/ownership.ts";
import {
  type ConfigMap,
  configMaps,
  customResourceDefinitions,
  events,
  leases,
} from "../../src/kube/resources.ts";
import { type Condition, mergeConditions, writeStatus } from "../../src/kube/status.ts";
import { WatchingInformer } from "../../src/kube/watching-informer.ts";
import { systemClock } from "../../src/runtime/clock.ts";
import { silentLogger } from "../../src/runtime/logger.ts";
import { Registry } from "../../src/runtime/metrics.ts";
import { systemRng } from "../../src/runtime/rng.ts";
import { type ApiServer, startApiServer } from "../cluster/api-server.ts";
import { type Widget, widgets } from "../contracts/kube-client.ts";
import { eventually } from "../eventually.ts";
import { untilServed, widgetDefinition } from "./kube-widgets.ts";

const lease = { namespace: "default", name: "test-operator" };
const finalizer = "test.drover.dev/cleanup";
let server: ApiServer;
let admin: LiveClient;
const clients: LiveClient[] = [];

function connect(): LiveClient {
  const client = new LiveClient({
    config: { from: "file", path: server.kubeconfigPath },
    userAgent: "drover-test/1",
    clock: systemClock,
    rng: systemRng,
    metrics: createKubeMetrics(new Registry()).restClient,
    logger: silentLogger,
  });
  clients.push(client);
  return client;
}

beforeAll(async () => {
  server = await startApiServer();
  admin = connect();
  await admin.create(customResourceDefinitions, widgetDefinition());
  await untilServed(admin);
}, 300_000);
afterAll(async () => {
  for (const client of clients) client.close();
  await server.stop();
});

/** A small operator: for each Widget a ConfigMap it owns, a Ready condition, a finalizer. */
function startOperator(identity: string, leaseDurationMs = 4_000) {
  const client = connect();
  const registry = new Registry();
  const metrics = createKubeMetrics(registry);
  const base = { client, clock: systemClock, rng: systemRng, logger: silentLogger };
  const widgetCache = new WatchingInformer(base, {
    type: widgets,
    project: ({ metadata, spec, status }: Widget) => ({
      metadata,
      size: spec?.size ?? 0,
      status: status ?? {},
    }),
  });
  const configCache = new WatchingInformer(base, {
    type: configMaps,
    project: ({ metadata, data }: ConfigMap) => ({ metadata, size: data?.["size"] }),
  });
  const recorder = new EventRecorder({
    ...base,
    reportingController: "test.drover.dev/widgets",
    reportingInstance: identity,
  });
  const controller: Controller = {
    name: "widget",
    watches: [watchObjects(widgetCache), watchOwned(configCache, widgets)],
    async reconcile(key, { signal }) {
      const widget = widgetCache.get(key);
      if (widget === undefined) return settled;
      const ref = refOf(key);
      const held = widget.metadata.finalizers?.includes(finalizer) ?? false;
      const finalizers = (list: string[]) =>
        client.patch(
          widgets,
          ref,
          {
            kind: "merge",
            body: {
              metadata: {
                finalizers: list,
                resourceVersion: widget.metadata.resourceVersion,
              },
            },
          },
          { signal },
        );
      if (widget.metadata.deletionTimestamp !== undefined) {
        if (held) await finalizers([]);
        return settled;
      }
      if (!held) {
        await finalizers([finalizer]);
        return settled;
      }
      const claim = { owner: ownerReferenceTo(widgets, widget) };
      const data = { size: `${widget.size}` };
      if (configCache.get(key)?.size !== data.size) {
        const metadata: ObjectMeta = { ...ref };
        const wanted = { apiVersion: "v1", kind: "ConfigMap", metadata, data };
        await applyOwned(client, configMaps, wanted, claim, {
          fieldManager: "test-operator",
          force: true,
          signal,
        });
        const fact = { reason: "Sized", action: "Apply", note: `size ${widget.size}` };
        recorder.record(widgets, widget, { type: "Normal", ...fact });
      }
      const previous = (widget.status as { conditions?: Condition[] }).conditions;
      const ready = { type: "Ready", status: "True", reason: "Applied", message: "" } as const;
      const at = { generation: widget.metadata.generation, nowMs: systemClock.now() };
      const conditions = mergeConditions(previous, [ready], at);
      await writeStatus(client, widgets, widget, { conditions }, { signal });
      return settled;
    },
  };
  const elector = new LeaderElector({
    ...base,
    metrics,
    lease,
    identity,
    leaseDurationMs,
    renewDeadlineMs: leaseDurationMs * 0.6,
    retryPeriodMs: 500,
  });
  const manager = new Manager({
    ...base,
    metrics,
    informers: [widgetCache, configCache],
    elector,
    controllers: [controller],
  });
  const stop = new AbortController();
  const over = manager.run(stop.signal).then(
    () => undefined,
    (error: unknown) => String(error),
  );
  return { elector, manager, recorder, stop, over };
}

async function makeWidget(name: string, size: number): Promise<Widget> {
  return await admin.create(widgets, {
    apiVersion: "test.drover.dev/v1",
    kind: "Widget",
    metadata: { name, namespace: "default" },
    spec: { size },
  });
}

const at = (name: string) => ({ namespace: "default", name });

async function readySize(name: string): Promise<string | undefined> {
  const widget = await admin.get(widgets, at(name));
  const ready = (widget.status?.["conditions"] as Condition[] | undefined)?.[0];
  if (ready?.observedGeneration !== widget.metadata.generation) return undefined;
  return (await admin.get(configMaps, at(name))).data?.["size"];
}

describe("two replicas of an operator", () => {
  it("one leads and works, the other takes over when it stops, and they never lead together", async () => {
    const first = startOperator("first");
    await eventually("the first leads", () => first.elector.leading);
    const second = startOperator("second");
    const both: number[] = [];
    const watching = new AbortController();
    const overlap = (async () => {
      while (!watching.signal.aborted) {
        both.push(Number(first.elector.leading) + Number(second.elector.leading));
        await sleep(20);
      }
    })();

    await eventually("both have caches", () => second.manager.readiness() === undefined);
    await makeWidget("a", 1);
    await eventually("the widget is ready", async () => (await readySize("a")) === "1");
    await admin.patch(widgets, at("a"), { kind: "merge", body: { spec: { size: 2 } } });
    await eventually("the change is applied", async () => (await readySize("a")) === "2");

    first.stop.abort();
    expect(await first.over).toBeUndefined();
    await eventually("the second leads", () => second.elector.leading);
    await makeWidget("b", 3);
    await eventually("the second works", async () => (await readySize("b")) === "3");

    await admin.delete(widgets, at("a"));
    await eventually("the finalizer is taken off", async () => {
      const page = await admin.list(widgets, { namespace: "default" });
      return !page.items.some((item) => objectKey(item) === "default/a");
    });
    await second.recorder.flush();
    const told = await admin.list(events, { namespace: "default" });
    watching.abort();
    await overlap;
    second.stop.abort();
    expect(await second.over).toBeUndefined();

    expect(Math.max(...both)).toBe(1);
    expect(told.items.map(({ reason, regarding }) => `${reason} ${regarding.name}`)).toContain(
      "Sized b",
    );
    expect((await admin.get(leases, lease)).spec).toMatchObject({ leaseTransitions: 1 });
  }, 120_000);

  it("the controller goes on after the API server was restarted", async () => {
    const operator = startOperator("restarted", 60_000);
    await eventually("it leads", () => operator.elector.leading);
    await server.restart();
    await makeWidget("c", 4);
    await eventually("it works", async () => (await readySize("c")) === "4");
    const stillLeads = operator.elector.leading;
    operator.stop.abort();
    await operator.over;

    expect(stillLeads).toBe(true);
  }, 120_000);

  it("an API server that hangs costs the lead in time, and the process says why", async () => {
    const operator = startOperator("hung");
    await eventually("it leads", () => operator.elector.leading);
    const from = Date.now();
    server.pause();
    try {
      expect(await operator.over).toMatch(/lease "test-operator" was lost: not renewed/);
      expect(Date.now() - from).toBeLessThan(20_000);
    } finally {
      server.resume();
    }
  }, 120_000);

  it("someone else's object by the wanted name is not taken over", async () => {
    const stranger = { apiVersion: "v1", kind: "ConfigMap", metadata: at("d"), data: { a: "b" } };
    await admin.create(configMaps, stranger);
    const operator = startOperator("refused");
    await eventually("it leads", () => operator.elector.leading);
    await makeWidget("d", 5);
    await sleep(1_500);
    operator.stop.abort();
    await operator.over;

    expect((await admin.get(configMaps, at("d"))).data).toEqual({ a: "b" });
  }, 120_000);
});
