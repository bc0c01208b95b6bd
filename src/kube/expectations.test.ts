import { describe, expect, it } from "@jest/globals";
import { FakeClock } from "../../test/fakes/fake-clock.ts";
import { FakeKube } from "../../test/fakes/fake-kube.ts";
import { createSeededRng } from "../../test/fakes/seeded-rng.ts";
import { silentLogger } from "../runtime/logger.ts";
import { Expectations } from "./expectations.ts";
import { pods } from "./resources.ts";
import { WatchingInformer } from "./watching-informer.ts";

const pod = (name: string) => ({
  apiVersion: "v1",
  kind: "Pod",
  metadata: { name, namespace: "one" },
});

async function start() {
  const clock = new FakeClock();
  const kube = new FakeKube();
  const deps = { client: kube, clock, rng: createSeededRng(), logger: silentLogger };
  const informer = new WatchingInformer(deps, {
    type: pods,
    project: ({ metadata: { uid = "" } }) => ({ metadata: { uid } }),
  });
  void informer.run(new AbortController().signal);
  await clock.settle();
  const expectations = new Expectations({ clock });
  expectations.follow(informer);
  return { clock, kube, expectations };
}

describe("Expectations", () => {
  it("a creation is owed until the cache shows it, whoever is faster", async () => {
    const { clock, kube, expectations } = await start();
    expectations.creating("owner", "one/a");
    expect(expectations.satisfied("owner")).toBe(false);
    expect(expectations.satisfied("other")).toBe(true);
    await kube.create(pods, pod("a"));
    await clock.settle();

    expect(expectations.satisfied("owner")).toBe(true);
  });

  it("a creation that failed is owed no more", async () => {
    const { expectations } = await start();
    expectations.creating("owner", "one/a");
    expectations.creating("owner", "one/b");
    expectations.met("one/a");

    expect(expectations.pending("owner")).toEqual(["one/b"]);
  });

  it("a deletion is owed until this very object is gone; changes to it do not count", async () => {
    const { clock, kube, expectations } = await start();
    const uid = kube.seed(pods, pod("a")).metadata.uid ?? "";
    await clock.settle();
    expectations.deleting("owner", "one/a", uid);
    kube.edit(pods, pod("a").metadata, (object) => {
      object.metadata.labels = { x: "y" };
    });
    await clock.settle();
    expect(expectations.satisfied("owner")).toBe(false);
    kube.vanish(pods, pod("a").metadata);
    await clock.settle();

    expect(expectations.satisfied("owner")).toBe(true);
  });

  it("the end of an earlier object by the same name does not count", async () => {
    const { clock, kube, expectations } = await start();
    kube.seed(pods, pod("a"));
    await clock.settle();
    kube.vanish(pods, pod("a").metadata);
    const uid = kube.seed(pods, pod("a")).metadata.uid ?? "";
    expectations.deleting("owner", "one/a", uid);
    await clock.settle();

    expect(expectations.satisfied("owner")).toBe(false);
  });

  it("what is never shown is given up after the time-out", async () => {
    const { clock, expectations } = await start();
    expectations.creating("owner", "one/a");
    await clock.advance(59_000);
    expect(expectations.satisfied("owner")).toBe(false);
    await clock.advance(2_000);

    expect(expectations.satisfied("owner")).toBe(true);
  });

  it("an owner that is gone owes nothing", async () => {
    const { expectations } = await start();
    expectations.creating("owner", "one/a");
    expectations.forget("owner");

    expect(expectations.satisfied("owner")).toBe(true);
  });
});
