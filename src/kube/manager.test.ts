import { describe, expect, it } from "@jest/globals";
import { FakeClock } from "../../test/fakes/fake-clock.ts";
import { FakeKube } from "../../test/fakes/fake-kube.ts";
import { createSeededRng } from "../../test/fakes/seeded-rng.ts";
import { aborted } from "../runtime/abort.ts";
import { createLogger } from "../runtime/logger.ts";
import { Registry } from "../runtime/metrics.ts";
import { type Controller, watchMapped, watchObjects, watchOwned } from "./controller.ts";
import { KubeError } from "./errors.ts";
import { LeaderElector } from "./leader-election.ts";
import { Manager } from "./manager.ts";
import { createKubeMetrics } from "./metrics.ts";
import type { ObjectMeta } from "./objects.ts";
import { settled } from "./outcome.ts";
import { configMaps, leases, pods } from "./resources.ts";
import { WatchingInformer } from "./watching-informer.ts";

const lease = { namespace: "drover", name: "operator" };

function start(kube = new FakeKube(), fails?: Promise<never>, passMs = 0) {
  const clock = new FakeClock();
  const rng = createSeededRng();
  const metrics = createKubeMetrics(new Registry());
  const lines: Record<string, unknown>[] = [];
  const logger = createLogger({
    level: "info",
    process: "test",
    destination: { write: (line) => void lines.push(JSON.parse(line)) },
  });
  const base = { clock, rng, logger };
  const story: string[] = [];
  const project = ({ metadata }: { metadata: ObjectMeta }) => ({ metadata });
  const informer = new WatchingInformer({ ...base, client: kube }, { type: configMaps, project });
  const podInformer = new WatchingInformer({ ...base, client: kube }, { type: pods, project });
  const controller: Controller = {
    name: "config",
    watches: [
      watchObjects(informer),
      watchOwned(podInformer, configMaps),
      watchMapped(podInformer, ({ metadata }) => metadata.labels?.["for"]?.split(",") ?? []),
    ],
    async reconcile(key) {
      story.push(`pass ${key}`);
      if (passMs > 0) {
        await clock.sleep(passMs);
        story.push(`lease of ${kube.peek(leases, lease)?.spec?.holderIdentity}`);
      }
      return settled;
    },
  };
  const part = (name: string) => ({
    name,
    async run(signal: AbortSignal) {
      story.push(`${name} up`);
      await (fails === undefined || name !== "reader"
        ? aborted(signal)
        : Promise.race([aborted(signal), fails]));
      story.push(`${name} down`);
    },
  });
  const elector = new LeaderElector({ ...base, client: kube, metrics, lease, identity: "a" });
  const manager = new Manager({
    ...base,
    metrics,
    always: [part("health")],
    informers: [informer, podInformer],
    elector,
    controllers: [controller],
    leaderOnly: [part("reader")],
  });
  const stop = new AbortController();
  const over = manager.run(stop.signal);
  return { clock, kube, manager, story, stop, over, lines };
}

const config = (name: string) => ({
  apiVersion: "v1",
  kind: "ConfigMap",
  metadata: { name, namespace: "one" },
});

describe("Manager", () => {
  it("starts health, then caches, then the lead, then controllers, which see what was there", async () => {
    const kube = new FakeKube();
    kube.seed(configMaps, config("a"));
    kube.fail("list", "Pod", new KubeError("cut", { status: 0, reason: "Unreachable" }));
    const { clock, manager, story } = start(kube);
    await clock.settle();
    expect(story).toEqual(["health up"]);
    expect(manager.readiness()).toBe("pods are not listed yet: cut");
    expect(kube.peek(leases, lease)).toBeUndefined();
    await clock.advance(2_000);

    expect(manager.readiness()).toBeUndefined();
    expect(story).toEqual(["health up", "reader up", "pass one/a"]);
  });

  it("a change of an owned or mapped object wakes its key", async () => {
    const { clock, kube, story } = start();
    const owner = kube.seed(configMaps, config("a"));
    await clock.advance(100);
    story.length = 0;
    const ownerReferences = [
      { apiVersion: "v1", kind: "ConfigMap", name: "a", uid: owner.metadata.uid ?? "" },
    ];
    const metadata = { name: "p", namespace: "one", ownerReferences, labels: { for: "x" } };
    kube.seed(pods, { apiVersion: "v1", kind: "Pod", metadata });
    await clock.advance(100);

    expect(story.toSorted()).toEqual(["pass one/a", "pass x"]);
  });

  it("stops in reverse order and releases the lease", async () => {
    const { clock, kube, story, stop, over } = start();
    await clock.advance(100);
    stop.abort();
    await clock.advance(100);
    await over;

    expect(story).toEqual(["health up", "reader up", "reader down", "health down"]);
    expect(kube.peek(leases, lease)?.spec?.holderIdentity).toBe("");
    expect(kube.watchCount()).toBe(0);
    expect(clock.pending).toBe(0);
  });

  it("a lost lease ends everything with an error that says so", async () => {
    const { clock, kube, story, over, lines } = start();
    const ended = over.catch((error: unknown) => String(error));
    await clock.advance(100);
    kube.fail("*", "Lease", new KubeError("cut", { status: 0, reason: "Unreachable" }), 1000);
    await clock.advance(15_000);

    expect(await ended).toMatch(/lease "operator" was lost/);
    expect(story.at(-1)).toBe("health down");
    // Told once, and not as the failure of a part.
    const troubles = lines.filter(({ level }) => level === "warn" || level === "error");
    expect(troubles.map(({ msg }) => msg)).toEqual(["lease lost"]);
  });

  it("a part that fails ends everything with its error; the lease is held to the last pass's end", async () => {
    const broken = Promise.withResolvers<never>();
    const full = new FakeKube();
    full.seed(configMaps, config("a"));
    const { clock, kube, story, over } = start(full, broken.promise, 3_000);
    const ended = over.catch((error: unknown) => String(error));
    await clock.advance(100);
    broken.reject(new Error("the reader broke"));
    await clock.advance(10_000);

    expect(await ended).toMatch(/the reader broke/);
    expect(story).toContain("lease of a");
    expect(kube.peek(leases, lease)?.spec?.holderIdentity).toBe("");
  });
});
