import { describe, expect, it } from "@jest/globals";
import { FakeClock } from "../../test/fakes/fake-clock.ts";
import { FakeKube } from "../../test/fakes/fake-kube.ts";
import { createSeededRng } from "../../test/fakes/seeded-rng.ts";
import { createLogger, silentLogger } from "../runtime/logger.ts";
import { KubeError } from "./errors.ts";
import { type ConfigMap, configMaps, pods } from "./resources.ts";
import { type InformerOptions, WatchingInformer } from "./watching-informer.ts";

interface Small {
  name: string;
  value: string;
}

const config = (name: string, value = "1", namespace = "one"): ConfigMap => ({
  apiVersion: "v1",
  kind: "ConfigMap",
  metadata: { name, namespace },
  data: { value },
});

function project(object: ConfigMap): Small {
  const value = object.data?.["value"];
  if (value === undefined) throw new Error("there is no value");
  return { name: object.metadata.name, value };
}

function start(options: Partial<InformerOptions<ConfigMap, Small>> = {}) {
  const clock = new FakeClock();
  const kube = new FakeKube();
  const lines: Record<string, unknown>[] = [];
  const logger = createLogger({
    level: "info",
    process: "test",
    destination: { write: (line) => void lines.push(JSON.parse(line)) },
  });
  const deps = { client: kube, clock, rng: createSeededRng(), logger };
  const indexes = { byValue: (object: Small) => [object.value] };
  const informer = new WatchingInformer(deps, { type: configMaps, project, indexes, ...options });
  const changes: string[] = [];
  informer.onChange(({ type, key, object, previous }) => {
    const from = previous === undefined ? "" : `${previous.value}→`;
    changes.push(`${type} ${key} ${from}${object.value}`);
  });
  const stop = new AbortController();
  const over = informer.run(stop.signal);
  const calls = () => kube.requests.map(({ verb }) => verb);
  return { clock, kube, informer, changes, stop, over, calls, lines };
}

const forbidden = new KubeError("no", { status: 403, reason: "Forbidden" });
const unreachable = new KubeError("cut", { status: 0, reason: "Unreachable" });
const gone = new KubeError("too old", { status: 410, reason: "Expired" });

describe("WatchingInformer", () => {
  it("has synced after the first list and follows from there", async () => {
    const { clock, kube, informer, changes } = start();
    expect(informer.hasSynced).toBe(false);
    expect(informer.readiness()).toBe("configmaps are not listed yet");
    kube.seed(configMaps, config("a"));
    await clock.settle();
    kube.seed(configMaps, config("b"));
    kube.edit<ConfigMap>(configMaps, config("a").metadata, (a) => {
      a.data = { value: "2" };
    });
    kube.vanish(configMaps, config("b").metadata);
    await clock.settle();

    expect(informer.hasSynced).toBe(true);
    expect(informer.readiness()).toBeUndefined();
    expect(changes).toEqual([
      "added one/a 1",
      "added one/b 1",
      "updated one/a 1→2",
      "deleted one/b 1",
    ]);
    expect(informer.list()).toEqual([{ name: "a", value: "2" }]);
    expect(informer.get("one/a")).toEqual({ name: "a", value: "2" });
  });

  it("finds by index, also after values have moved", async () => {
    const { clock, kube, informer } = start();
    kube.seed(configMaps, config("a"));
    kube.seed(configMaps, config("b"));
    await clock.settle();
    expect(informer.byIndex("byValue", "1").map(({ name }) => name)).toEqual(["a", "b"]);
    kube.edit<ConfigMap>(configMaps, config("a").metadata, (a) => {
      a.data = { value: "2" };
    });
    kube.vanish(configMaps, config("b").metadata);
    await clock.settle();

    expect(informer.byIndex("byValue", "1")).toEqual([]);
    expect(informer.byIndex("byValue", "2")).toHaveLength(1);
    expect(() => informer.byIndex("none", "1")).toThrow('there is no index "none"');
  });

  it("a listener that comes late hears of every present object, one that left of nothing", async () => {
    const { clock, kube, informer } = start();
    kube.seed(configMaps, config("a"));
    await clock.settle();
    const heard: string[] = [];
    const leave = informer.onChange(({ type, key }) => heard.push(`${type} ${key}`));
    leave();
    kube.seed(configMaps, config("b"));
    await clock.settle();

    expect(heard).toEqual(["added one/a"]);
  });

  it("a listener that throws does not keep others from hearing", async () => {
    const { clock, kube, informer } = start();
    const heard: string[] = [];
    informer.onChange(() => {
      throw new Error("bug");
    });
    informer.onChange(({ key }) => heard.push(key));
    kube.seed(configMaps, config("a"));
    await clock.settle();

    expect(heard).toEqual(["one/a"]);
  });

  it("a watch that the server ends is opened again from the newest version, without a list", async () => {
    const { clock, kube, changes, calls } = start();
    await clock.advance(60_000);
    kube.bookmark("ConfigMap");
    await clock.settle();
    kube.closeWatches("ConfigMap");
    kube.seed(configMaps, config("a"));
    await clock.settle();

    expect(calls()).toEqual(["list", "watch", "watch"]);
    expect(changes).toEqual(["added one/a 1"]);
  });

  it("a bookmark moves the version, so that a compaction in between needs no list", async () => {
    const { clock, kube, calls } = start();
    await clock.advance(60_000);
    // Another kind's change moves the versions of all.
    kube.seed(pods, { ...config("p"), kind: "Pod" });
    kube.compact();
    kube.bookmark("ConfigMap");
    await clock.settle();
    kube.closeWatches("ConfigMap");
    await clock.settle();

    expect(calls()).toEqual(["list", "watch", "watch"]);
  });

  it("410 leads to a list that tells what was deleted, changed and made meanwhile", async () => {
    const { clock, kube, changes, calls } = start();
    for (const name of ["gone", "kept", "changed", "replaced"]) kube.seed(configMaps, config(name));
    await clock.advance(60_000);
    changes.length = 0;
    kube.fail("watch", "ConfigMap", unreachable);
    kube.closeWatches("ConfigMap");
    kube.vanish(configMaps, config("gone").metadata);
    kube.vanish(configMaps, config("replaced").metadata);
    kube.seed(configMaps, config("replaced", "9"));
    kube.edit<ConfigMap>(configMaps, config("changed").metadata, (object) => {
      object.data = { value: "2" };
    });
    kube.seed(configMaps, config("new"));
    kube.compact();
    await clock.advance(30_000);

    expect(changes.toSorted()).toEqual([
      "added one/new 1",
      "added one/replaced 9",
      "deleted one/gone 1",
      "deleted one/replaced 1",
      "updated one/changed 1→2",
    ]);
    expect(calls()).toEqual(["list", "watch", "watch", "watch", "list", "watch"]);
    expect(kube.watchCount()).toBe(1);
  });

  it("410 again and again is backed off", async () => {
    const { clock, kube, calls } = start();
    kube.fail("watch", "ConfigMap", gone, 1000);
    await clock.advance(120_000);

    expect(calls().length).toBeLessThan(50);
  });

  it.each([
    { name: "an unreachable server", error: unreachable },
    { name: "403", error: forbidden },
  ])(
    "$name costs one call per back-off, and afterwards one list and one watch stay open",
    async ({ error }) => {
      const { clock, kube, informer, calls } = start();
      kube.seed(configMaps, config("a"));
      await clock.advance(60_000);
      kube.requests.length = 0;
      kube.fail("list", "ConfigMap", error, 1000);
      kube.fail("watch", "ConfigMap", error, 1000);
      kube.closeWatches("ConfigMap", error);
      await clock.advance(120_000);
      expect(calls().length).toBeGreaterThan(10);
      expect(calls().length).toBeLessThan(40);
      expect(informer.get("one/a")).toBeDefined();

      kube.stopFailing();
      await clock.advance(10_000);
      kube.requests.length = 0;
      await clock.advance(120_000);

      expect(calls()).toEqual([]);
      expect(kube.watchCount()).toBe(1);
    },
  );

  it("a server that closes each watch at once is not knocked at without pause", async () => {
    const { clock, kube, calls } = start();
    await clock.settle();
    for (let second = 0; second < 60; second += 1) {
      kube.closeWatches("ConfigMap");
      await clock.advance(1_000);
    }

    expect(calls().length).toBeLessThan(25);
  });

  it("Retry-After is honoured", async () => {
    const { clock, kube, calls } = start();
    const options = { status: 429, reason: "TooManyRequests", retryAfterMs: 20_000 };
    kube.fail("list", "ConfigMap", new KubeError("busy", options));
    await clock.advance(19_000);
    expect(calls()).toEqual(["list"]);
    await clock.advance(1_500);

    expect(calls()).toEqual(["list", "list", "watch"]);
  });

  it("readiness says what keeps the first list from succeeding", async () => {
    const { clock, kube, informer } = start();
    kube.fail("list", "ConfigMap", forbidden, 1000);
    await clock.advance(5_000);

    expect(informer.readiness()).toBe("configmaps are not listed yet: no");
  });

  it("a server that cannot be reached is no line of its own: the client tells of it", async () => {
    const { clock, kube, lines } = start();
    await clock.advance(60_000);
    kube.fail("list", "ConfigMap", unreachable, 20);
    kube.fail("watch", "ConfigMap", unreachable, 20);
    kube.closeWatches("ConfigMap", gone);
    await clock.advance(600_000);

    expect(lines).toEqual([]);
  });

  it("a refusal is one line once it lasts, with the names of all lines, and its end another", async () => {
    const { clock, kube, lines } = start({ namespaces: ["one"] });
    kube.fail("watch", "ConfigMap", forbidden, 10);
    await clock.advance(9_000);
    expect(lines).toEqual([]);
    await clock.advance(120_000);
    kube.bookmark("ConfigMap");
    await clock.settle();

    const common = { component: "informer", kind: "ConfigMap", namespace: "one" };
    expect(lines).toEqual([
      expect.objectContaining({ ...common, level: "warn", err: "no", code: "FORBIDDEN" }),
      expect.objectContaining({ ...common, level: "info", msg: "list and watch work again" }),
    ]);
  });

  it("a server that refuses for a moment, as one that starts does, is no line", async () => {
    const { clock, kube, lines } = start();
    kube.fail("list", "ConfigMap", forbidden, 2);
    await clock.advance(120_000);

    expect(lines).toEqual([]);
  });

  it("a jump of the wall clock changes nothing", async () => {
    const { clock, kube, calls } = start();
    await clock.advance(1_000);
    clock.jump(86_400_000);
    await clock.advance(1_000);
    clock.jump(-2 * 86_400_000);
    await clock.advance(60_000);

    expect(calls()).toEqual(["list", "watch"]);
    expect(kube.watchCount()).toBe(1);
  });

  it("lists in pages of 500 and asks for random watch times of 5 to 10 minutes", async () => {
    const listed: (number | undefined)[] = [];
    const watched: number[] = [];
    const clock = new FakeClock();
    const kube = new FakeKube();
    for (let n = 0; n < 1200; n += 1) kube.seed(configMaps, config(`c${n}`));
    const client: Pick<FakeKube, "list" | "watch"> = {
      list(type, options) {
        listed.push(options?.limit);
        return kube.list(type, options);
      },
      watch(type, options) {
        watched.push(options.timeoutSeconds);
        return kube.watch(type, options);
      },
    };
    const deps = { client, clock, rng: createSeededRng(), logger: silentLogger };
    const informer = new WatchingInformer(deps, { type: configMaps, project });
    const stop = new AbortController();
    const over = informer.run(stop.signal);
    await clock.advance(60_000);
    kube.closeWatches("ConfigMap");
    await clock.settle();
    stop.abort();
    await over;

    expect(listed).toEqual([500, 500, 500]);
    expect(informer.list()).toHaveLength(1200);
    expect(watched).toHaveLength(2);
    expect(watched[0]).not.toBe(watched[1]);
    expect(watched.every((seconds) => seconds >= 300 && seconds <= 600)).toBe(true);
  });

  it("an object that cannot be projected is absent, and the rest is there", async () => {
    const { clock, kube, informer, changes } = start();
    kube.seed(configMaps, { ...config("bad"), data: {} });
    kube.seed(configMaps, config("good"));
    await clock.settle();
    expect(informer.hasSynced).toBe(true);
    kube.edit<ConfigMap>(configMaps, config("good").metadata, (object) => {
      object.data = {};
    });
    kube.edit<ConfigMap>(configMaps, config("bad").metadata, (object) => {
      object.data = { value: "3" };
    });
    await clock.settle();

    expect(changes).toEqual(["added one/good 1", "deleted one/good 1", "added one/bad 3"]);
  });

  it("the projection does not see managed fields", async () => {
    const clock = new FakeClock();
    const kube = new FakeKube();
    const metadata = { ...config("a").metadata, managedFields: [{ manager: "x" }] };
    kube.seed(configMaps, { ...config("a"), metadata });
    const deps = { client: kube, clock, rng: createSeededRng(), logger: silentLogger };
    const whole = (object: ConfigMap) => object;
    const informer = new WatchingInformer(deps, { type: configMaps, project: whole });
    void informer.run(new AbortController().signal);
    await clock.settle();

    expect(informer.list()).toHaveLength(1);
    expect(informer.get("one/a")?.metadata).not.toHaveProperty("managedFields");
  });

  it("follows several namespaces, each alone, and has synced when all are listed", async () => {
    const { clock, kube, informer, changes } = start({ namespaces: ["one", "two"] });
    kube.fail("list", "ConfigMap", unreachable);
    kube.seed(configMaps, config("a"));
    kube.seed(configMaps, config("a", "2", "two"));
    kube.seed(configMaps, config("a", "3", "three"));
    await clock.settle();
    expect(informer.hasSynced).toBe(false);
    await clock.advance(2_000);

    expect(informer.hasSynced).toBe(true);
    expect(changes.toSorted()).toEqual(["added one/a 1", "added two/a 2"]);
  });

  it("a stop ends watch and back-off at once", async () => {
    const running = start();
    await running.clock.settle();
    running.stop.abort();
    await running.over;
    expect(running.kube.watchCount()).toBe(0);

    const failing = start();
    failing.kube.fail("list", "ConfigMap", unreachable, 1000);
    await failing.clock.settle();
    failing.stop.abort();
    await failing.over;
    expect(failing.clock.pending).toBe(0);
  });

  it("whoever waits for the sync is told of the stop", async () => {
    const { informer, kube, clock } = start();
    kube.fail("list", "ConfigMap", unreachable, 1000);
    const stop = new AbortController();
    const waitingForSync = informer.synced(stop.signal);
    await clock.settle();
    stop.abort(new Error("stopped"));

    await expect(waitingForSync).rejects.toThrow("stopped");
  });
});
