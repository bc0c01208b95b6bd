import { afterEach, expect, it } from "@jest/globals";
import { FakeClock } from "../../test/fakes/fake-clock.ts";
import { StoreCheck } from "./store-check.ts";

const stop: AbortController[] = [];
afterEach(() => {
  for (const one of stop.splice(0)) one.abort();
});

function running(answers: { workers: Error | undefined; probe: Error | undefined }) {
  const clock = new FakeClock(0);
  let probes = 0;
  const check = new StoreCheck({
    queue: {
      workers: () =>
        answers.workers === undefined ? Promise.resolve([]) : Promise.reject(answers.workers),
    },
    probe: () => {
      probes += 1;
      return answers.probe === undefined ? Promise.resolve() : Promise.reject(answers.probe);
    },
    clock,
  });
  const controller = new AbortController();
  stop.push(controller);
  void check.run(controller.signal);
  return { check, clock, probes: () => probes };
}

it("a store that does not answer is a problem until it answers", async () => {
  const answers = { workers: new Error("down"), probe: undefined } as Parameters<typeof running>[0];
  const { check, clock } = running(answers);
  await clock.advance(1_000);
  const down = check.problem();
  answers.workers = undefined;
  await clock.advance(5_000);

  expect(down).toBe("the session log does not answer: down");
  expect(check.problem()).toBeUndefined();
});

it("a store that answers and has become unfit shows within half a minute, until it is fit", async () => {
  const answers = { workers: undefined, probe: undefined } as Parameters<typeof running>[0];
  const { check, clock, probes } = running(answers);
  await clock.advance(20_000);
  const before = { problem: check.problem(), probes: probes() };
  answers.probe = new Error("a node of a Redis Cluster");
  await clock.advance(15_000);
  const unfit = check.problem();
  answers.probe = undefined;
  await clock.advance(35_000);

  expect(before).toEqual({ problem: undefined, probes: 0 });
  expect(unfit).toBe("a node of a Redis Cluster");
  expect(check.problem()).toBeUndefined();
});
