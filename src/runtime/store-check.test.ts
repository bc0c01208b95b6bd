import { afterEach, beforeEach, describe, expect, it } from "@jest/globals";
import { FakeClock } from "../../test/fakes/fake-clock.ts";
import { createLogger } from "./logger.ts";
import { StoreCheck } from "./store-check.ts";

let stop = new AbortController();
beforeEach(() => {
  stop = new AbortController();
});
afterEach(() => stop.abort());

describe("an outage of the session store", () => {
  it("shows while it lasts, and is one line when it begins and one when it ends", async () => {
    const clock = new FakeClock();
    const lines: { level: string; msg: string; durationMs?: number }[] = [];
    const destination = { write: (line: string) => void lines.push(JSON.parse(line)) };
    const logger = createLogger({ level: "info", process: "test", destination });
    let down = false;
    const ask = async () => {
      if (down) throw new Error("no answer for the test");
    };
    const check = new StoreCheck({ ask, clock, logger });
    void check.run(stop.signal);
    await clock.advance(10_000);
    const before = check.problem();
    down = true;
    await clock.advance(60_000);
    const during = check.problem();
    down = false;
    await clock.advance(4_000);

    expect({ before, during, after: check.problem() }).toEqual({
      before: undefined,
      during: "the session store does not answer: no answer for the test",
      after: undefined,
    });
    expect(lines.map(({ level, msg }) => [level, msg])).toEqual([
      ["warn", "session store does not answer"],
      ["info", "session store answers again"],
    ]);
    expect(lines[1]?.durationMs).toBeGreaterThan(50_000);
  });

  it("shows when the store takes a question and never answers it", async () => {
    const clock = new FakeClock();
    const logger = createLogger({ level: "silent", process: "test" });
    const check = new StoreCheck({ ask: () => new Promise(() => {}), clock, logger });
    void check.run(stop.signal);
    await clock.advance(6_000);

    expect(check.problem()).toContain("did not finish within 5000 ms");
  });

  it("is not all: a store that answers and has become unfit shows within half a minute", async () => {
    const clock = new FakeClock();
    const logger = createLogger({ level: "silent", process: "test" });
    let unfit: Error | undefined;
    let probes = 0;
    const probe = async () => {
      probes += 1;
      if (unfit !== undefined) throw unfit;
    };
    const check = new StoreCheck({ ask: async () => {}, probe, clock, logger });
    void check.run(stop.signal);
    await clock.advance(20_000);
    const before = { problem: check.problem(), probes };
    unfit = new Error("a node of a Redis Cluster");
    await clock.advance(15_000);
    const during = check.problem();
    unfit = undefined;
    await clock.advance(35_000);

    expect(before).toEqual({ problem: undefined, probes: 0 });
    expect(during).toBe("a node of a Redis Cluster");
    expect(check.problem()).toBeUndefined();
  });
});
