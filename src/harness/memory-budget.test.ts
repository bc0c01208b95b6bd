import { describe, expect, it } from "@jest/globals";
import { FakeClock } from "../../test/fakes/fake-clock.ts";
import {
  budgetOf,
  isShort,
  MemoryBudget,
  type MemoryShare,
  NEWCOMER_BYTES,
  SMALL_BYTES,
} from "./memory-budget.ts";

const MB = 1024 * 1024;
const fine = { liveHeap: 0, containerShare: 0 };

function aBudget(limitMb: number) {
  const clock = new FakeClock();
  const budget = new MemoryBudget({ heapLimit: heapFor(limitMb), clock });
  return { clock, budget };
}

/** The heap whose budget is so large. */
function heapFor(limitMb: number): number {
  return ((limitMb * 3 + 48) * MB) / 0.8;
}

async function begun(budget: MemoryBudget): Promise<MemoryShare> {
  const share = budget.open();
  await share.reserve(SMALL_BYTES + 1);
  return share;
}

async function loaded(budget: MemoryBudget, mb: number): Promise<MemoryShare> {
  const share = await begun(budget);
  await share.reserve(mb * MB);
  share.hold(mb * MB);
  return share;
}

/** How a promise stands after everything that can go on has gone on. */
async function stateOf(clock: FakeClock, promise: Promise<unknown>): Promise<string> {
  let state = "waiting";
  promise.then(
    () => (state = "admitted"),
    (error: { kind: string }) => (state = error.kind),
  );
  await clock.advance(0);
  return state;
}

describe("the memory of a worker", () => {
  it("follows from the heap, and is enough for one ordinary session whatever the heap", () => {
    expect(budgetOf(259 * MB) / MB).toBeCloseTo(53.1, 0);
    expect(budgetOf(2048 * MB)).toBeGreaterThan(400 * MB);
    expect(budgetOf(32 * MB)).toBe(4 * MB);
  });

  it("lets sessions in while their logs fit, and claims none while one waits", async () => {
    const { clock, budget } = aBudget(20);
    const first = await loaded(budget, 8);
    await loaded(budget, 8);
    const third = await begun(budget);
    const waiting = third.reserve(8 * MB);

    expect(await stateOf(clock, waiting)).toBe("waiting");
    expect(budget.capacity()).toBe(0);

    first.close();

    expect(await stateOf(clock, waiting)).toBe("admitted");
  });

  it("does not claim what it has no room for, going by the last sessions", async () => {
    const { budget } = aBudget(40);
    expect(budget.capacity()).toBe((40 * MB) / NEWCOMER_BYTES);

    for (let i = 0; i < 18; i += 1) await loaded(budget, 2);

    expect(budget.capacity()).toBe(2);
  });

  it("sends those behind away at once when the first has to wait, and the first after a while", async () => {
    const { clock, budget } = aBudget(20);
    await loaded(budget, 15);
    const [first, second] = [await begun(budget), await begun(budget)];
    const [a, b] = [first.reserve(10 * MB), second.reserve(4 * MB)];

    expect(await stateOf(clock, b)).toBe("no_room");
    expect(await stateOf(clock, a)).toBe("waiting");
    expect(budget.capacity()).toBe(0);

    await clock.advance(10_000);

    expect(await stateOf(clock, a)).toBe("no_room");
  });

  it("reads a few large logs at once, small ones always, and makes no room for what has read nothing yet", async () => {
    const { clock, budget } = aBudget(20);
    const readers = await Promise.all([1, 2, 3, 4].map(() => begun(budget)));
    const fifth = budget.open();
    const waiting = fifth.reserve(SMALL_BYTES + 1);
    await budget.open().reserve(SMALL_BYTES);

    expect(await stateOf(clock, waiting)).toBe("waiting");

    readers[0]?.hold(17 * MB);
    readers[0]?.close();

    expect(await stateOf(clock, waiting)).toBe("admitted");
  });

  it("takes one session at least, and none that is larger than everything", async () => {
    const { clock, budget } = aBudget(20);

    expect(budget.capacity()).toBeGreaterThan(0);
    expect(await stateOf(clock, (await begun(budget)).reserve(19 * MB))).toBe("admitted");
    expect(await stateOf(clock, (await begun(budget)).reserve(21 * MB))).toBe("too_large");
  });

  it("makes the largest go when all have grown too large together, and never the only one", async () => {
    const { budget } = aBudget(20);
    const [small, large] = [await loaded(budget, 4), await loaded(budget, 10)];

    small.hold(11 * MB);

    expect([small.leave.aborted, large.leave.aborted]).toEqual([true, false]);

    small.close();
    large.hold(50 * MB);

    expect(large.leave.aborted).toBe(false);
  });

  it("gives sessions up one by one when too much is alive, breaks off what stays, and pauses", async () => {
    const { clock, budget } = aBudget(20);
    const short = { liveHeap: heapFor(20) * 0.9, containerShare: 0 };
    const [small, large] = [await loaded(budget, 1), await loaded(budget, 5)];

    expect(budget.collected(fine)).toBe(0);
    expect(budget.collected(short)).toBe(1);
    expect([small.leave.aborted, large.leave.aborted]).toEqual([false, true]);
    expect(budget.capacity()).toBe(0);

    expect(budget.collected(short)).toBe(0);
    expect([small.leave.aborted, large.hard.aborted]).toEqual([false, true]);

    large.close();
    await clock.advance(5000);

    expect(budget.capacity()).toBeGreaterThan(0);
    expect(isShort({ liveHeap: 0, containerShare: 0.96 }, MB)).toBe(true);
  });

  it("lets 25 sessions end of which eight fit at once", async () => {
    const { clock, budget } = aBudget(20);
    const queue = Array.from({ length: 25 }, (_, i) => i);
    const ended = new Set<number>();
    const work = async (session: number) => {
      const share = budget.open();
      try {
        await share.reserve(SMALL_BYTES + 1);
        for (let bytes = NEWCOMER_BYTES; bytes < 2.4 * MB; bytes += NEWCOMER_BYTES) {
          await clock.sleep(1);
          await share.reserve(bytes);
        }
        share.hold(2.4 * MB);
        await clock.sleep(500);
        ended.add(session);
      } catch {
        queue.push(session);
      } finally {
        share.close();
      }
    };

    for (let ms = 0; ms < 60_000 && ended.size < 25; ms += 100) {
      for (const next of queue.splice(0, budget.capacity())) void work(next);
      expect(budget.used).toBeLessThanOrEqual(budget.limit);
      await clock.advance(100);
    }

    expect(ended.size).toBe(25);
  });
});
