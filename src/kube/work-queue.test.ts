import { describe, expect, it } from "@jest/globals";
import { FakeClock } from "../../test/fakes/fake-clock.ts";
import { createSeededRng } from "../../test/fakes/seeded-rng.ts";
import { Registry } from "../runtime/metrics.ts";
import { createKubeMetrics } from "./metrics.ts";
import { WorkQueue } from "./work-queue.ts";

function start() {
  const clock = new FakeClock();
  const registry = new Registry();
  const queue = new WorkQueue({
    name: "test",
    clock,
    rng: createSeededRng(),
    metrics: createKubeMetrics(registry).workQueue,
    overall: { perSecond: 10, burst: 5 },
  });
  const value = async (metric: string) => {
    const found = await registry.getSingleMetric(metric)?.get();
    return found?.values[0]?.value;
  };
  /** Everything that can be taken now, each marked done. */
  const drain = async () => {
    const keys: string[] = [];
    while (queue.length > 0) {
      const key = (await queue.take()) ?? "";
      keys.push(key);
      queue.done(key);
    }
    return keys;
  };
  return { clock, queue, value, drain };
}

describe("WorkQueue", () => {
  it("gives a key out once, however often it was added, in the order of adding", async () => {
    const { queue, drain } = start();
    for (const key of ["a", "b", "a", "a"]) queue.add(key);

    expect(await drain()).toEqual(["a", "b"]);
  });

  it("does not give out a key that is worked on, and gives it out again when it was added meanwhile", async () => {
    const { queue } = start();
    queue.add("a");
    const key = await queue.take();
    queue.add("a");
    queue.add("a");

    expect(queue.length).toBe(0);

    queue.done(key ?? "");
    expect(await queue.take()).toBe("a");
    queue.done("a");
    expect(queue.length).toBe(0);
  });

  it("a taker that waits gets the next key", async () => {
    const { queue } = start();
    const taken = [queue.take(), queue.take()];
    queue.add("a");
    queue.add("b");

    expect(await Promise.all(taken)).toEqual(["a", "b"]);
  });

  it("adds after exactly the given time, and of two times keeps the earlier", async () => {
    const { clock, queue, drain } = start();
    queue.addAfter("a", 1000);
    queue.addAfter("a", 5000);
    queue.addAfter("b", 5000);
    queue.addAfter("b", 1000);

    await clock.advance(999);
    expect(queue.length).toBe(0);
    await clock.advance(1);
    expect(await drain()).toEqual(["a", "b"]);
    expect(clock.pending).toBe(0);
  });

  it("backs a key off ever longer, up to the limit, until it is forgotten", async () => {
    const { clock, queue, drain } = start();
    const delays: number[] = [];
    for (let attempt = 0; attempt < 15; attempt += 1) {
      queue.addRateLimited("a");
      const before = clock.monotonic();
      while (queue.length === 0) await clock.advance(10);
      delays.push(clock.monotonic() - before);
      await drain();
    }

    expect(delays[0]).toBeLessThanOrEqual(60);
    expect(delays[5]).toBeGreaterThan(700);
    expect(Math.max(...delays)).toBeLessThanOrEqual(60_010);
    expect(delays.at(-1)).toBeGreaterThan(30_000);
    queue.forget("a");
    expect(queue.failures("a")).toBe(0);
  }, 60_000);

  it("spreads the retries of many keys by the overall bucket", async () => {
    const { clock, queue } = start();
    for (let n = 0; n < 25; n += 1) queue.addRateLimited(`key-${n}`);

    await clock.advance(100);
    expect(queue.length).toBeLessThanOrEqual(6);
    await clock.advance(2_000);
    expect(queue.length).toBe(25);
  });

  it("a closed queue gives nothing, drops what waits and holds no timer", async () => {
    const { clock, queue } = start();
    const waiting = queue.take();
    queue.addAfter("a", 1000);
    queue.close();
    queue.add("b");

    expect(await waiting).toBeUndefined();
    expect(await queue.take()).toBeUndefined();
    expect([queue.length, clock.pending]).toEqual([0, 0]);
  });

  it("counts depth, adds, retries and the age of work in progress", async () => {
    const { clock, queue, value } = start();
    queue.add("a");
    queue.add("b");
    expect(await value("workqueue_depth")).toBe(2);
    await queue.take();
    await clock.advance(3000);

    expect(await value("workqueue_depth")).toBe(1);
    expect(await value("workqueue_adds_total")).toBe(2);
    expect(await value("workqueue_unfinished_work_seconds")).toBe(3);
    expect(await value("workqueue_longest_running_processor_seconds")).toBe(3);
    queue.addRateLimited("a");
    expect(await value("workqueue_retries_total")).toBe(1);
  });
});
