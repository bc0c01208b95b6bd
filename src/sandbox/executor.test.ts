import { beforeEach, describe, expect, it } from "@jest/globals";
import { z } from "zod";
import { FakeClock } from "../../test/fakes/fake-clock.ts";
import { inputHash } from "../protocol/sandbox-api.ts";
import { silentLogger } from "../runtime/logger.ts";
import { Registry } from "../runtime/metrics.ts";
import { Executor } from "./executor.ts";
import { applyRecord, emptyState, type JournalRecord } from "./journal-record.ts";
import { createSandboxMetrics } from "./metrics.ts";
import type { Tool, ToolContext, ToolEnd } from "./tools/tool.ts";

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

/** Output of one call, in memory. */
function fakeOutput() {
  let text = "";
  return {
    write: (chunk: Buffer) => {
      text += chunk.toString("utf8");
    },
    end: () => ({ text, whole: true, totalBytes: text.length }),
  } as unknown as ToolContext["output"];
}

let order: string[];
let journal: FakeJournal;
let clock: FakeClock;
let finish: (end: ToolEnd) => void;
let running: ToolContext | undefined;

beforeEach(() => {
  order = [];
  journal = new FakeJournal(order);
  clock = new FakeClock();
  running = undefined;
});

const OK: ToolEnd = { isError: false, notes: [] };

/** A tool that ends when the test says so, or when it is stopped. */
function tool(name: string, queue: Tool["queue"], deadlineMs?: number): Tool {
  return {
    name,
    input: z.object({ text: z.string() }),
    queue,
    deadlineMs,
    run: (input, context) => {
      order.push(`run ${name} ${(input as { text: string }).text}`);
      running = context;
      const { promise, resolve } = Promise.withResolvers<ToolEnd>();
      finish = resolve;
      context.signal.addEventListener("abort", () =>
        resolve({ isError: true, notes: ["stopped"], aborted: true }),
      );
      return promise;
    },
    clean: (text) => text,
    close: () => {
      order.push(`close ${name}`);
      return Promise.resolve();
    },
  };
}

function executor(tails: Record<string, string> = {}): Executor {
  const tools = [tool("bash", "shell"), tool("read", undefined, 1000)];
  return new Executor({
    tools: new Map(tools.map((one) => [one.name, one])),
    journal,
    outputs: {
      record: fakeOutput,
      tailOf: (id) => tails[id] ?? "",
      forget: () => {},
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
    running?.output.write(Buffer.from("out"));
    finish(OK);
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

  it("with a name no tool has is answered with the names there are", async () => {
    const result = await executor().execute(request("a", "rm"), anyone).done;

    expect(result).toMatchObject({ is_error: true, outcome: "known" });
    expect(result.content).toBe('there is no tool "rm" in this sandbox; it has bash, read');
  });

  it("with an input that does not fit is answered with the field, and does not run", async () => {
    const bad = { ...request("a"), input: { text: 5 } };

    const result = await executor().execute(bad, anyone).done;

    expect(result.is_error).toBe(true);
    expect(result.content).toMatch(/^bash: the input does not fit: `text`: .*string/);
    expect(order).not.toContain("run bash a");
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

  it("that outlasts the deadline of its tool is given up with an error", async () => {
    const call = executor().execute(request("a", "read"), anyone);
    await settle();
    await clock.advance(1000);

    expect(await call.done).toMatchObject({
      content: "read did not finish within 1000 ms",
      is_error: true,
    });
  });

  it("whose tool breaks is an error that tells nothing of our insides", async () => {
    const subject = executor();
    const broken = subject.execute(request("a"), anyone);
    await settle();
    finish(Promise.reject(new Error("/host/path/secret.ts")) as unknown as ToolEnd);

    expect((await broken.done).content).toBe(
      "bash failed inside the sandbox; this is a bug of the tool",
    );
  });
});

describe("many calls", () => {
  it("of the shell run in the order they came, and start only in their turn", async () => {
    const subject = executor();
    const first = subject.execute(request("a"), anyone);
    subject.execute(request("b"), anyone);
    await settle();
    const before = [...order];
    finish(OK);
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
    const subject = executor({ a: "the tail" });

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
    finish(OK);

    expect(await subject.cancel("a")).toMatchObject({ outcome: "known", is_error: false });
  });

  it("close stops what runs as unknown, refuses what waits, and closes the tools last", async () => {
    const subject = executor();
    const first = subject.execute(request("a"), anyone);
    const second = subject.execute(request("b"), anyone);
    const refused = second.done.catch((error: unknown) => error);
    await settle();

    await subject.close();

    expect((await first.done).outcome).toBe("unknown");
    expect(await refused).toMatchObject({ code: "UNAVAILABLE" });
    expect(order).toEqual(["started a", "run bash a", "done a", "close bash", "close read"]);
    expect(() => subject.execute(request("c"), anyone)).toThrow(
      expect.objectContaining({ code: "UNAVAILABLE" }),
    );
  });
});
