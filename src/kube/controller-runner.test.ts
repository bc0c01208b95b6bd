import { describe, expect, it } from "@jest/globals";
import { FakeClock } from "../../test/fakes/fake-clock.ts";
import { createSeededRng } from "../../test/fakes/seeded-rng.ts";
import { AppError } from "../runtime/errors.ts";
import { createLogger } from "../runtime/logger.ts";
import { Registry } from "../runtime/metrics.ts";
import type { Controller, Enqueue, PassContext } from "./controller.ts";
import { ControllerRunner } from "./controller-runner.ts";
import { KubeError } from "./errors.ts";
import { LeaseLostError } from "./leader-election.ts";
import { createKubeMetrics } from "./metrics.ts";
import { type Outcome, settled, settledFor, stalled, TerminalError, waiting } from "./outcome.ts";

type Reconcile = (key: string, context: PassContext) => Outcome | Promise<Outcome>;

function start(reconcile: Reconcile, options: Partial<Controller> = {}) {
  const clock = new FakeClock();
  const registry = new Registry();
  const lines: Record<string, unknown>[] = [];
  const logger = createLogger({
    level: "debug",
    process: "test",
    destination: { write: (line) => void lines.push(JSON.parse(line)) },
  });
  const passes: string[] = [];
  let queue: Enqueue | undefined;
  let watching = false;
  const controller: Controller = {
    name: "widget",
    watches: [
      (enqueue) => {
        queue = enqueue;
        watching = true;
        return () => {
          watching = false;
        };
      },
    ],
    async reconcile(key, context) {
      passes.push(key);
      return await reconcile(key, context);
    },
    ...options,
  };
  const rng = createSeededRng();
  const metrics = createKubeMetrics(registry);
  const runner = new ControllerRunner({ controller, clock, rng, logger, metrics });
  const stop = new AbortController();
  const over = runner.run(stop.signal);
  const results = async () => {
    const metric = await registry.getSingleMetric("controller_runtime_reconcile_total")?.get();
    const counted = metric?.values.filter(({ value }) => value > 0) ?? [];
    return Object.fromEntries(counted.map(({ labels, value }) => [labels["result"], value]));
  };
  const count = async (name: string) => {
    const metric = await registry.getSingleMetric(`controller_runtime_${name}`)?.get();
    return metric?.values[0]?.value;
  };
  return {
    clock,
    lines,
    passes,
    stop,
    over,
    results,
    count,
    add: (key: string) => queue?.add(key),
    isWatching: () => watching,
  };
}

const conflict = () => new KubeError("changed", { status: 409, reason: "Conflict" });

describe("ControllerRunner", () => {
  it("a settled key is left alone until it is added again", async () => {
    const { add, clock, passes, results } = start(() => settled);
    add("a");
    await clock.advance(3_600_000);
    add("a");
    await clock.settle();

    expect(passes).toEqual(["a", "a"]);
    expect(await results()).toEqual({ success: 2 });
  });

  it("a settled key with a time is looked at again after it", async () => {
    const { add, clock, passes, results } = start(() => settledFor(10_000));
    add("a");
    await clock.advance(9_999);
    expect(passes).toHaveLength(1);
    await clock.advance(1);

    expect(passes).toHaveLength(2);
    expect(await results()).toEqual({ requeue_after: 2 });
  });

  it("a waiting key is tried again after exactly its time, every time", async () => {
    const { add, clock, passes, count } = start(() => waiting("PodNotReady", 2_000));
    add("a");
    for (let n = 1; n <= 5; n += 1) {
      await clock.advance(1_999);
      expect(passes).toHaveLength(n);
      await clock.advance(1);
      expect(passes).toHaveLength(n + 1);
    }

    expect(await count("reconcile_errors_total")).toBe(0);
  });

  it("a stalled key is left alone and its reason logged", async () => {
    const { add, clock, passes, lines } = start(() => stalled("AgentMissing", "no such agent"));
    add("one/a");
    await clock.advance(3_600_000);

    expect(passes).toHaveLength(1);
    expect(lines).toContainEqual(
      expect.objectContaining({
        controller: "widget",
        namespace: "one",
        name: "a",
        reason: "AgentMissing",
      }),
    );
  });

  it("an error is counted, logged with an id, and tried again after a growing back-off", async () => {
    const { add, clock, passes, lines, count } = start(() => {
      throw new Error("no luck");
    });
    add("a");
    await clock.advance(1_000);
    const soon = passes.length;
    await clock.advance(600_000);

    expect(soon).toBeGreaterThan(2);
    expect(soon).toBeLessThan(8);
    expect(passes.length).toBeLessThan(30);
    expect(await count("reconcile_errors_total")).toBe(passes.length);
    expect(await count("reconcile_panics_total")).toBe(0);
    expect(lines.find(({ msg }) => msg === "pass failed")).toMatchObject({
      err: "no luck",
      code: "INTERNAL",
      name: "a",
      attempt: 1,
      reconcileId: expect.stringMatching(/^pass_/),
    });
  });

  it("a success makes the next failure the first again", async () => {
    const ends = [new Error("1"), new Error("2"), undefined, new Error("3")];
    const { add, clock, lines } = start(() => {
      const end = ends.shift();
      if (end !== undefined) throw end;
      return settled;
    });
    add("a");
    await clock.advance(10_000);
    add("a");
    await clock.settle();

    const attempts = lines
      .filter(({ msg }) => msg === "pass failed")
      .map((line) => line["attempt"]);
    expect(attempts).toEqual([1, 2, 1]);
  });

  it.each([
    ["the API server is away", new KubeError("cut", { status: 0, reason: "Unreachable" }), "debug"],
    ["the session store is away", new AppError("REDIS_UNREACHABLE", "no answer"), "debug"],
    [
      "a webhook fails",
      new KubeError("webhook", { status: 500, reason: "InternalError" }),
      "error",
    ],
    ["a right is missing", new KubeError("no", { status: 403, reason: "Forbidden" }), "error"],
  ])(
    "a pass that fails because %s is tried again; an outage is told of once, elsewhere",
    async (_, error, level) => {
      const { add, clock, passes, lines, count } = start(() => {
        throw error;
      });
      add("a");
      await clock.advance(60_000);

      const failed = lines.filter(({ msg }) => msg === "pass failed");
      expect(new Set(failed.map((line) => line["level"]))).toEqual(new Set([level]));
      expect(passes.length).toBeGreaterThan(2);
      expect(await count("reconcile_errors_total")).toBe(passes.length);
    },
  );

  it("a terminal error is counted and not tried again", async () => {
    const { add, clock, passes, count } = start(() => {
      throw new TerminalError("impossible");
    });
    add("a");
    await clock.advance(3_600_000);

    expect(passes).toHaveLength(1);
    expect(await count("terminal_reconcile_errors_total")).toBe(1);
  });

  it.each([
    { name: "a thrown string", thrown: "oops" as unknown },
    { name: "a TypeError", thrown: new TypeError("undefined is not a function") },
  ])("$name is a bug: counted as panic, logged, and the worker goes on", async ({ thrown }) => {
    let broken = true;
    const { add, clock, passes, count } = start(() => {
      if (broken) throw thrown;
      return settled;
    });
    add("a");
    await clock.settle();
    broken = false;
    add("b");
    await clock.settle();

    expect(await count("reconcile_panics_total")).toBe(1);
    expect(passes).toContain("b");
  });

  it("conflict and not-found are waiting: tried again soon, never counted as errors, never spinning", async () => {
    const { add, clock, passes, count, results } = start(() => {
      throw conflict();
    });
    add("a");
    await clock.advance(200);
    expect(passes.length).toBeGreaterThan(1);
    await clock.advance(600_000);

    expect(passes.length).toBeLessThan(30);
    expect(await count("reconcile_errors_total")).toBe(0);
    expect(Object.keys(await results())).toEqual(["requeue"]);
  });

  it("429 with Retry-After waits as long as the server asks", async () => {
    const { add, clock, passes } = start(() => {
      throw new KubeError("busy", { status: 429, reason: "TooManyRequests", retryAfterMs: 7_000 });
    });
    add("a");
    await clock.advance(6_999);
    expect(passes).toHaveLength(1);
    await clock.advance(1);

    expect(passes).toHaveLength(2);
  });

  it("works on several keys side by side, never on one key twice at once", async () => {
    const clockHolder: { sleep?: (ms: number) => Promise<void> } = {};
    let most = 0;
    const active = new Map<string, number>();
    const { add, clock, passes } = start(
      async (key) => {
        active.set(key, (active.get(key) ?? 0) + 1);
        most = Math.max(most, active.size);
        expect(active.get(key)).toBe(1);
        await clockHolder.sleep?.(100);
        active.delete(key);
        return settled;
      },
      { concurrency: 2 },
    );
    clockHolder.sleep = (ms) => clock.sleep(ms);
    for (const key of ["a", "b", "c"]) add(key);
    await clock.settle();
    for (const key of ["a", "b", "c"]) add(key);
    await clock.advance(1_000);

    expect(most).toBe(2);
    expect(passes.toSorted()).toEqual(["a", "a", "b", "b", "c"]);
  });

  it("a pass that takes too long is told by its signal and counted", async () => {
    let reason: unknown;
    const { add, clock, count } = start(
      async (_key, { signal }) => {
        await new Promise((resolve) => signal.addEventListener("abort", resolve));
        reason = signal.reason;
        throw new Error("stopped");
      },
      { passTimeoutMs: 5_000 },
    );
    add("a");
    await clock.advance(5_000);

    expect(reason).toMatchObject({ message: "the pass took longer than 5000 ms" });
    expect(await count("reconcile_timeouts_total")).toBe(1);
  });

  it("a stop ends the watches, lets the running pass finish, and starts no other", async () => {
    const gate = Promise.withResolvers<Outcome>();
    const run = start(() => gate.promise, { concurrency: 1 });
    run.add("a");
    run.add("b");
    await run.clock.settle();
    run.stop.abort();
    await run.clock.settle();
    expect(run.isWatching()).toBe(false);
    gate.resolve(settled);
    await run.over;

    expect(run.passes).toEqual(["a"]);
    expect(run.clock.pending).toBe(0);
  });

  it("after the grace period a running pass is aborted, and its failure is not counted", async () => {
    const run = start(async (_key, { signal }) => {
      await new Promise((resolve) => signal.addEventListener("abort", resolve));
      throw new Error("stopped");
    });
    run.add("a");
    await run.clock.settle();
    run.stop.abort();
    await run.clock.advance(5_000);
    await run.over;

    expect(await run.count("reconcile_errors_total")).toBe(0);
  });

  it("a pass that ignores its signal is left behind", async () => {
    const run = start(() => new Promise<Outcome>(() => {}));
    run.add("a");
    await run.clock.settle();
    run.stop.abort();
    await run.clock.advance(10_000);
    await run.over;

    expect(run.lines.at(-1)).toMatchObject({ level: "error" });
  });

  it("a lost lease aborts running passes at once", async () => {
    const run = start(async (_key, { signal }) => {
      await new Promise((resolve) => signal.addEventListener("abort", resolve));
      return settled;
    });
    run.add("a");
    await run.clock.settle();
    run.stop.abort(new LeaseLostError("gone"));
    await run.over;

    expect(run.clock.pending).toBe(0);
  });
});
