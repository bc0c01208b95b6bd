import { beforeEach, describe, expect, it } from "@jest/globals";
import { FakeClock } from "../../test/fakes/fake-clock.ts";
import { inputHash } from "../protocol/sandbox-api.ts";
import { silentLogger } from "../runtime/logger.ts";
import { Registry } from "../runtime/metrics.ts";
import { Executor } from "./executor.ts";
import { applyRecord, emptyState, type JournalRecord } from "./journal-record.ts";
import { createSandboxMetrics } from "./metrics.ts";
import type { RunnerCall, ToolRunner } from "./runner-link.ts";
import type { RunResult } from "./runner-protocol.ts";

/** A journal in memory that can be made to fail, and tells in which order things happened. */
class FakeJournal {
  readonly state = emptyState();
  readonly order: string[];
  failing = false;

  constructor(order: string[]) {
    this.order = order;
  }

  append(record: JournalRecord): Promise<void> {
    if (this.failing) return Promise.reject(Object.assign(new Error("full"), { code: "ENOSPC" }));
    this.order.push("id" in record ? `${record.t} ${record.id}` : record.t);
    applyRecord(this.state, record);
    return Promise.resolve();
  }
}

/** A runner whose calls end when the test says so, or when they are stopped. */
class FakeRunner implements ToolRunner {
  problem: string | undefined;
  readonly order: string[];
  finish: (end: RunResult | "lost") => void = () => {};
  tail: (tail: Buffer) => void = () => {};
  /** Resolves what waits for a runner. */
  arrive: () => void = () => {};

  constructor(order: string[]) {
    this.order = order;
  }

  async ready(signal: AbortSignal): Promise<void> {
    if (this.problem === undefined) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.arrive = () => {
      this.problem = undefined;
      resolve();
    };
    signal.addEventListener("abort", () => resolve());
    await promise;
  }

  run(
    { id, name }: RunnerCall,
    signal: AbortSignal,
    onTail: (tail: Buffer) => void,
  ): Promise<RunResult | "lost"> {
    this.order.push(`run ${name} ${id}`);
    this.tail = onTail;
    const { promise, resolve } = Promise.withResolvers<RunResult | "lost">();
    this.finish = resolve;
    signal.addEventListener("abort", () =>
      resolve({ content: "stopped", is_error: true, aborted: true, outputBytes: 0 }),
    );
    return promise;
  }
}

let order: string[];
let journal: FakeJournal;
let runner: FakeRunner;
let clock: FakeClock;

beforeEach(() => {
  order = [];
  journal = new FakeJournal(order);
  runner = new FakeRunner(order);
  clock = new FakeClock();
});

const OK: RunResult = { content: "out", is_error: false, aborted: false, outputBytes: 3 };

function executor(tails = new Map<string, string>()): Executor {
  return new Executor({
    runner,
    journal,
    tails: {
      keep: (id, tail) => tails.set(id, tail.toString("utf8")),
      of: (id) => tails.get(id) ?? "",
      forget: (id) => tails.delete(id),
    },
    clock,
    logger: silentLogger,
    metrics: createSandboxMetrics(new Registry()),
  });
}

function request(id: string, name = "bash", text = id) {
  const input = { text };
  return { id, name, input, inputHash: inputHash(name, input), epoch: 1 };
}

const anyone = () => {};
const settle = () => clock.advance(0);

describe("one call", () => {
  it("is recorded as started before it runs, and as done before its result is out", async () => {
    const subject = executor();
    const call = subject.execute(request("a"), anyone);
    const told = call.done.then(() => order.push("told"));
    await settle();
    runner.finish(OK);
    await told;

    expect(order).toEqual(["started a", "run bash a", "done a", "told"]);
    expect(await call.done).toEqual({ content: "out", is_error: false, outcome: "known" });
  });

  it("of a superseded caller never starts", () => {
    const refuse = () => {
      throw new Error("stale");
    };

    expect(() => executor().execute(request("a"), refuse)).toThrow("stale");
    expect(order).toEqual([]);
  });

  it("that cannot be recorded does not run, and may be sent again", async () => {
    const subject = executor();
    journal.failing = true;
    await expect(subject.execute(request("a"), anyone).done).rejects.toMatchObject({
      code: "UNAVAILABLE",
    });
    expect(order).toEqual([]);
    expect(subject.problem).toBe("the journal cannot be written");
    expect(subject.find("a")).toBeUndefined();
  });

  it("whose runner is lost is unknown, with what it had printed", async () => {
    const tails = new Map<string, string>();
    const call = executor(tails).execute(request("a"), anyone);
    await settle();
    runner.tail(Buffer.from("the tail"));
    runner.finish("lost");

    expect(await call.done).toMatchObject({ is_error: true, outcome: "unknown" });
    expect((await call.done).content).toMatch(
      /^The sandbox restarted while this call was running.*The last it printed:\nthe tail$/s,
    );
    expect(journal.state.calls.get("a")?.result).toEqual(await call.done);
    expect(tails.size).toBe(0);
  });
});

describe("without a runner", () => {
  it("a call waits, and starts only when there is one", async () => {
    const subject = executor();
    runner.problem = "away";
    const call = subject.execute(request("a"), anyone);
    await settle();
    const before = [...order];
    runner.arrive();
    await settle();
    runner.finish(OK);

    expect(before).toEqual([]);
    expect(subject.problem).toBeUndefined();
    expect((await call.done).outcome).toBe("known");
  });

  it("a call that is cancelled meanwhile has not run", async () => {
    const subject = executor();
    runner.problem = "away";
    subject.execute(request("a"), anyone);
    await settle();

    expect(await subject.cancel("a")).toMatchObject({ outcome: "cancelled" });
    expect(order).toEqual(["done a"]);
  });

  it("the sandbox says that it takes no calls", () => {
    runner.problem = "away";

    expect(executor().problem).toBe("away");
  });
});

describe("many calls", () => {
  it("of the shell run in the order they came, and start only in their turn", async () => {
    const subject = executor();
    const first = subject.execute(request("a"), anyone);
    subject.execute(request("b"), anyone);
    await settle();
    const before = [...order];
    runner.finish(OK);
    await first.done;
    await settle();

    expect(before).toEqual(["started a", "run bash a"]);
    expect(order).toEqual(["started a", "run bash a", "done a", "started b", "run bash b"]);
  });

  it("of tools without a queue run side by side", async () => {
    const subject = executor();
    subject.execute(request("a", "read"), anyone);
    subject.execute(request("b", "read"), anyone);
    await settle();

    expect(order).toContain("run read a");
    expect(order).toContain("run read b");
  });

  it("beyond sixty-four at once are refused", () => {
    const subject = executor();
    for (let i = 0; i < 64; i += 1) subject.execute(request(`id-${i}`, "read"), anyone);

    expect(() => subject.execute(request("one-more", "read"), anyone)).toThrow(
      expect.objectContaining({ code: "UNAVAILABLE", retryable: true }),
    );
    expect(subject.execute(request("id-0", "read"), anyone).id).toBe("id-0");
  });
});

describe("after a restart", () => {
  it("a call that had started is unknown, recorded so, with what it had printed", async () => {
    applyRecord(journal.state, { t: "started", id: "a", name: "bash", inputHash: "h" });
    applyRecord(journal.state, { t: "started", id: "b", name: "bash", inputHash: "h" });
    const subject = executor(new Map([["a", "the tail"]]));

    await subject.recover();

    expect(subject.find("a")?.result).toMatchObject({ outcome: "unknown", is_error: true });
    expect(subject.find("a")?.result?.content).toContain("The last it printed:\nthe tail");
    expect(subject.find("b")?.result?.content).not.toContain("printed");
    expect(journal.state.calls.get("a")?.result?.outcome).toBe("unknown");
    expect(order).toEqual(["done a", "done b"]);
  });
});

describe("stopping", () => {
  it("a cancelled call that had ended by itself in that moment keeps its result", async () => {
    const subject = executor();
    subject.execute(request("a"), anyone);
    await settle();
    runner.finish(OK);

    expect(await subject.cancel("a")).toMatchObject({ outcome: "known", is_error: false });
  });

  it("close stops what runs as unknown, and refuses what waits", async () => {
    const subject = executor();
    const first = subject.execute(request("a"), anyone);
    const second = subject.execute(request("b"), anyone);
    const refused = second.done.catch((error: unknown) => error);
    await settle();

    await subject.close();

    expect((await first.done).outcome).toBe("unknown");
    expect(await refused).toMatchObject({ code: "UNAVAILABLE" });
    expect(order).toEqual(["started a", "run bash a", "done a"]);
    expect(() => subject.execute(request("c"), anyone)).toThrow(
      expect.objectContaining({ code: "UNAVAILABLE" }),
    );
  });
});
