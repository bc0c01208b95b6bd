/**
 * What every `KubeClient` promises. FakeKube runs it in the unit tests, the live client against a
 * real API server: if they disagree, the fake is wrong.
 */
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "@jest/globals";
import type { KubeClient, WatchEvent } from "../../src/kube/client.ts";
import {
  isAlreadyExists,
  isConflict,
  isGone,
  isInvalid,
  isNotFound,
} from "../../src/kube/errors.ts";
import { type KubeObject, type ObjectRef, uidOf } from "../../src/kube/objects.ts";
import {
  type ConfigMap,
  configMaps,
  defineResource,
  namespaces,
} from "../../src/kube/resources.ts";

export interface Widget extends KubeObject {
  spec?: { size?: number; colour?: string; parts?: string[]; nested?: Record<string, string> };
  status?: Record<string, unknown>;
}

/** A namespaced kind with a status sub-resource; the harness installs it where that is needed. */
export const widgets = defineResource<Widget>("test.drover.dev/v1", "Widget", "widgets");

export interface KubeClientHarness {
  client: KubeClient;
  close(): Promise<void>;
}

export function describeKubeClient(name: string, start: () => Promise<KubeClientHarness>): void {
  describe(`${name} keeps the KubeClient contract`, () => {
    let harness: KubeClientHarness;
    let client: KubeClient;
    let namespace = "";
    let made = 0;

    beforeAll(async () => {
      harness = await start();
      client = harness.client;
    }, 300_000);
    afterAll(() => harness.close());
    beforeEach(async () => {
      made += 1;
      namespace = `contract-${made}`;
      const metadata = { name: namespace };
      await client.create(namespaces, { apiVersion: "v1", kind: "Namespace", metadata });
    });

    const widget = (widgetName: string, rest: Partial<Widget> = {}): Widget => ({
      apiVersion: "test.drover.dev/v1",
      kind: "Widget",
      metadata: { name: widgetName, namespace },
      ...rest,
    });
    const config = (configName: string, labels: Record<string, string> = {}): ConfigMap => ({
      apiVersion: "v1",
      kind: "ConfigMap",
      metadata: { name: configName, namespace, labels },
      data: { a: "1" },
    });
    const ref = (refName: string): ObjectRef => ({ name: refName, namespace });

    describe("reading and creating", () => {
      it("a created object has uid, version, generation and time, and is read back", async () => {
        const created = await client.create(widgets, widget("a", { spec: { size: 1 } }));

        const read = await client.get(widgets, ref("a"));

        expect(read).toEqual(created);
        expect(read).toMatchObject({ apiVersion: "test.drover.dev/v1", kind: "Widget" });
        expect(read.metadata.generation).toBe(1);
        expect(read.metadata.uid).toMatch(/^[0-9a-f-]{36}$/);
        expect(read.metadata.resourceVersion).toMatch(/^\d+$/);
        expect(read.metadata.creationTimestamp).toMatch(/^\d{4}-.*Z$/);
      });

      it("a status given at creation is dropped", async () => {
        const created = await client.create(widgets, widget("a", { status: { phase: "x" } }));

        expect(created.status).toBeUndefined();
      });

      it("creating the same name again fails with already-exists, which is no conflict", async () => {
        await client.create(configMaps, config("a"));

        const error = await failure(client.create(configMaps, config("a")));

        expect(isAlreadyExists(error)).toBe(true);
        expect(isConflict(error)).toBe(false);
      });

      it("reading and deleting what is not there fails with not-found", async () => {
        expect(isNotFound(await failure(client.get(configMaps, ref("none"))))).toBe(true);
        expect(isNotFound(await failure(client.delete(configMaps, ref("none"))))).toBe(true);
      });

      it("creating in a namespace that does not exist fails with not-found", async () => {
        const object = { ...config("a"), metadata: { name: "a", namespace: "nowhere" } };

        expect(isNotFound(await failure(client.create(configMaps, object)))).toBe(true);
      });

      it("a dry run writes nothing", async () => {
        await client.create(configMaps, config("a"), { dryRun: true });

        expect(isNotFound(await failure(client.get(configMaps, ref("a"))))).toBe(true);
      });

      it("a name may be left to the server", async () => {
        const object = widget("");
        object.metadata = { name: "", generateName: "w-", namespace };

        const created = await client.create(widgets, object);

        expect(created.metadata.name).toMatch(/^w-.{5}/);
      });
    });

    describe("listing", () => {
      it("finds by namespace and label, with apiVersion and kind on each item", async () => {
        await client.create(configMaps, config("a", { app: "x" }));
        await client.create(configMaps, config("b", { app: "y", tier: "z" }));

        const by = async (labelSelector: string) => {
          const page = await client.list(configMaps, { namespace, labelSelector });
          return page.items.map((item) => item.metadata.name);
        };

        expect(await by("app")).toEqual(["a", "b"]);
        expect(await by("app=y,tier!=q")).toEqual(["b"]);
        expect(await by("app in (x, q)")).toEqual(["a"]);
        expect(await by("app,!tier")).toEqual(["a"]);
        const page = await client.list(configMaps, { namespace, fieldSelector: "metadata.name=b" });
        expect(page.items).toMatchObject([
          { apiVersion: "v1", kind: "ConfigMap", metadata: { name: "b" } },
        ]);
      });

      it("pages join to the whole, all at one version", async () => {
        for (const one of ["a", "b", "c", "d", "e"]) await client.create(widgets, widget(one));

        const first = await client.list(widgets, { namespace, limit: 2 });
        const token = { continueToken: first.continueToken ?? "" };
        const second = await client.list(widgets, { namespace, limit: 2, ...token });
        const more = { continueToken: second.continueToken ?? "" };
        const third = await client.list(widgets, { namespace, limit: 2, ...more });

        const pages = [first, second, third].map((page) => page.items.map(nameOf));
        expect(pages).toEqual([["a", "b"], ["c", "d"], ["e"]]);
        expect(third.continueToken).toBeUndefined();
        expect(third.resourceVersion).toBe(first.resourceVersion);
      });
    });

    describe("patching", () => {
      it("generation moves with spec only; version moves with every change and no no-op", async () => {
        const created = await client.create(widgets, widget("a", { spec: { size: 1 } }));
        const same = await client.patch(widgets, ref("a"), merge({ spec: { size: 1 } }));
        const relabelled = await client.patch(widgets, ref("a"), merge(labelled({ x: "y" })));
        const changed = await client.patch(widgets, ref("a"), merge({ spec: { size: 2 } }));

        expect(same.metadata.resourceVersion).toBe(created.metadata.resourceVersion);
        expect(relabelled.metadata.generation).toBe(1);
        expect(relabelled.metadata.resourceVersion).not.toBe(created.metadata.resourceVersion);
        expect(changed.metadata.generation).toBe(2);
      });

      it("a merge patch removes by null, merges objects and replaces lists", async () => {
        const spec = { size: 1, parts: ["a", "b"], nested: { k: "v", l: "w" } };
        await client.create(widgets, widget("a", { spec }));

        const patch = { spec: { size: null, parts: ["c"], nested: { k: null, m: "x" } } };
        const patched = await client.patch(widgets, ref("a"), merge(patch));

        expect(patched.spec).toEqual({ parts: ["c"], nested: { l: "w", m: "x" } });
      });

      it("a merge patch for an old version conflicts", async () => {
        const old = await client.create(widgets, widget("a"));
        await client.patch(widgets, ref("a"), merge({ spec: { size: 2 } }));

        const resourceVersion = old.metadata.resourceVersion;
        const body = { metadata: { resourceVersion }, spec: { size: 3 } };
        const error = await failure(client.patch(widgets, ref("a"), merge(body)));

        expect(isConflict(error)).toBe(true);
      });

      it("a JSON patch adds and removes; a failed test refuses it", async () => {
        await client.create(widgets, widget("a", { spec: { parts: ["a", "b"] } }));
        const remove = [
          { op: "test", path: "/spec/parts/0", value: "a" },
          { op: "remove", path: "/spec/parts/0" },
        ] as const;

        const patched = await client.patch(widgets, ref("a"), { kind: "json", body: remove });
        const error = await failure(
          client.patch(widgets, ref("a"), { kind: "json", body: remove }),
        );

        expect(patched.spec?.parts).toEqual(["b"]);
        expect(isInvalid(error)).toBe(true);
      });

      it("patching what is not there fails with not-found", async () => {
        const error = await failure(client.patch(widgets, ref("none"), merge({ spec: {} })));

        expect(isNotFound(error)).toBe(true);
      });
    });

    describe("status", () => {
      it("is written by patchStatus alone, and leaves generation and spec as they are", async () => {
        await client.create(widgets, widget("a", { spec: { size: 1 } }));
        const viaSpec = await client.patch(widgets, ref("a"), merge({ status: { phase: "x" } }));
        const written = await client.patchStatus(widgets, ref("a"), { phase: "y", n: 1 });
        const merged = await client.patchStatus(widgets, ref("a"), { n: null, m: 2 });

        expect(viaSpec.status).toBeUndefined();
        expect(written.status).toEqual({ phase: "y", n: 1 });
        expect(merged.status).toEqual({ phase: "y", m: 2 });
        expect(merged.metadata.generation).toBe(1);
        expect(merged.spec).toEqual({ size: 1 });
      });

      it("for an old version conflicts", async () => {
        const old = await client.create(widgets, widget("a"));
        await client.patchStatus(widgets, ref("a"), { phase: "x" });

        const resourceVersion = old.metadata.resourceVersion ?? "";
        const options = { resourceVersion };
        const error = await failure(client.patchStatus(widgets, ref("a"), { phase: "y" }, options));

        expect(isConflict(error)).toBe(true);
      });
    });

    describe("deleting", () => {
      it("without finalizers removes at once", async () => {
        await client.create(widgets, widget("a"));
        await client.delete(widgets, ref("a"));

        expect(isNotFound(await failure(client.get(widgets, ref("a"))))).toBe(true);
      });

      it("with a wrong uid or version conflicts and deletes nothing", async () => {
        const created = await client.create(widgets, widget("a"));
        const wrong = "11111111-1111-4111-8111-111111111111";

        const byUid = await failure(client.delete(widgets, ref("a"), { uid: wrong }));
        const byVersion = await failure(client.delete(widgets, ref("a"), { resourceVersion: "1" }));

        expect([isConflict(byUid), isConflict(byVersion)]).toEqual([true, true]);
        await client.delete(widgets, ref("a"), { uid: uidOf(created) });
      });

      it("waits for finalizers, takes no new ones meanwhile, and ends with the last", async () => {
        const object = widget("a");
        object.metadata.finalizers = ["test.drover.dev/hold"];
        await client.create(widgets, object);
        await client.delete(widgets, ref("a"));
        const held = await client.get(widgets, ref("a"));
        const more = { metadata: { finalizers: ["test.drover.dev/hold", "test.drover.dev/late"] } };
        const refused = await failure(client.patch(widgets, ref("a"), merge(more)));
        await client.patch(widgets, ref("a"), merge({ metadata: { finalizers: null } }));

        expect(held.metadata.deletionTimestamp).toMatch(/Z$/);
        expect(isInvalid(refused)).toBe(true);
        expect(isNotFound(await failure(client.get(widgets, ref("a"))))).toBe(true);
      });
    });

    describe("server-side apply", () => {
      const mine = { fieldManager: "mine" };

      it("creates, then changes what differs and gives up what is no longer sent", async () => {
        const spec = { size: 1, colour: "red", nested: { k: "v" } };
        const created = await client.apply(widgets, widget("a", { spec }), mine);
        const again = await client.apply(widgets, widget("a", { spec }), mine);
        const changed = await client.apply(widgets, widget("a", { spec: { size: 2 } }), mine);

        expect(again.metadata.resourceVersion).toBe(created.metadata.resourceVersion);
        expect(changed.spec).toEqual({ size: 2 });
        expect(changed.metadata.generation).toBe(2);
      });

      it("leaves other managers' fields alone, conflicts over a value, takes over by force", async () => {
        await client.apply(widgets, widget("a", { spec: { size: 1, colour: "red" } }), {
          fieldManager: "theirs",
        });
        await client.apply(widgets, widget("a", { spec: { nested: { k: "v" } } }), mine);
        const blue = widget("a", { spec: { colour: "blue" } });
        const error = await failure(client.apply(widgets, blue, mine));
        const forced = await client.apply(widgets, blue, { ...mine, force: true });

        expect(isConflict(error)).toBe(true);
        expect(forced.spec).toEqual({ size: 1, colour: "blue" });
      });

      it("does not remove a field that another manager applies too", async () => {
        const both = widget("a", { spec: { size: 1 } });
        await client.apply(widgets, both, mine);
        await client.apply(widgets, both, { fieldManager: "theirs" });

        const without = await client.apply(widgets, widget("a", { spec: {} }), mine);

        expect(without.spec).toEqual({ size: 1 });
      });

      it("for another object's uid is refused, and for the uid of one that is gone conflicts", async () => {
        await client.apply(widgets, widget("a"), mine);
        const uid = "11111111-1111-4111-8111-111111111111";
        const other = widget("a");
        other.metadata.uid = uid;
        const gone = widget("b");
        gone.metadata.uid = uid;

        expect(isInvalid(await failure(client.apply(widgets, other, mine)))).toBe(true);
        expect(isConflict(await failure(client.apply(widgets, gone, mine)))).toBe(true);
      });
    });

    describe("watching", () => {
      const watch = async (
        signal: AbortSignal,
        count: number,
        where: { resourceVersion: string; labelSelector?: string },
      ) => {
        const events: WatchEvent<ConfigMap>[] = [];
        const options = { namespace, timeoutSeconds: 60, silenceMs: 120_000, signal, ...where };
        for await (const event of client.watch(configMaps, options)) {
          if (event.type !== "BOOKMARK") events.push(event);
          if (events.length === count) break;
        }
        return events.map((event) =>
          event.type === "BOOKMARK" ? event.type : `${event.type} ${nameOf(event.object)}`,
        );
      };

      it("tells what happened since a version, in order", async () => {
        const page = await client.list(configMaps, { namespace, labelSelector: "t" });
        await client.create(configMaps, config("a"));
        await client.create(configMaps, config("b"));
        await client.patch(configMaps, ref("a"), merge({ data: { a: "2" } }));
        await client.delete(configMaps, ref("b"));

        const signal = AbortSignal.timeout(30_000);
        const told = await watch(signal, 4, { resourceVersion: page.resourceVersion });

        expect(told.filter((one) => !one.includes("kube-root-ca"))).toEqual([
          "ADDED a",
          "ADDED b",
          "MODIFIED a",
          "DELETED b",
        ]);
      });

      it("an object that leaves the selector is deleted, one that enters is added", async () => {
        const page = await client.list(configMaps, { namespace });
        await client.create(configMaps, config("a", { app: "x" }));
        await client.patch(configMaps, ref("a"), merge(labelled({ app: "y" })));
        await client.patch(configMaps, ref("a"), merge(labelled({ app: "x" })));

        const { resourceVersion } = page;
        const signal = AbortSignal.timeout(30_000);
        const told = await watch(signal, 3, { resourceVersion, labelSelector: "app=x" });

        expect(told).toEqual(["ADDED a", "DELETED a", "ADDED a"]);
      });

      it("tells what happens while it is open, and ends when the signal aborts", async () => {
        const page = await client.list(configMaps, { namespace });
        const stop = new AbortController();
        const watching = watch(stop.signal, 99, { resourceVersion: page.resourceVersion });
        watching.catch(() => {});
        await client.create(configMaps, config("a"));
        stop.abort();

        expect(await failure(watching)).toBeDefined();
      });

      it("from a version that is too old fails with 410", async () => {
        await client.create(configMaps, config("a"));

        const error = await failure(
          watch(AbortSignal.timeout(30_000), 1, { resourceVersion: "1" }),
        );

        expect(isGone(error)).toBe(true);
      });
    });
  });
}

function merge(body: Record<string, unknown>) {
  return { kind: "merge", body } as const;
}

function labelled(values: Record<string, string>) {
  return { metadata: { labels: values } };
}

function nameOf(object: KubeObject): string {
  return object.metadata.name;
}

async function failure(work: Promise<unknown>): Promise<unknown> {
  try {
    await work;
  } catch (error) {
    return error;
  }
  throw new Error("the call succeeded although it should fail");
}
