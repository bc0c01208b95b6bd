import { beforeEach, expect, it } from "@jest/globals";
import { z } from "zod";
import { FakeClock } from "../../test/fakes/fake-clock.ts";
import { silentLogger } from "../runtime/logger.ts";
import { ToolHost, type ToolHostOptions } from "./tool-host.ts";
import type { Tool, ToolContext, ToolEnd } from "./tools/tool.ts";

let clock: FakeClock;
let finish: (end: ToolEnd) => void;
let running: ToolContext | undefined;
beforeEach(() => {
  clock = new FakeClock();
  running = undefined;
});

const OK: ToolEnd = { isError: false, notes: [] };

/** A tool that ends when the test says so, or when it is stopped. */
function tool(name: string, deadlineMs?: number): Tool {
  return {
    name,
    input: z.object({ text: z.string() }),
    deadlineMs,
    run: (_input, context) => {
      running = context;
      const { promise, resolve } = Promise.withResolvers<ToolEnd>();
      finish = resolve;
      context.signal.addEventListener("abort", () =>
        resolve({ isError: true, notes: ["stopped"], aborted: true }),
      );
      return promise;
    },
    clean: (text) => text,
    close: () => Promise.resolve(),
  };
}

/** Output of one call, in memory. */
function record(_id: string, onOutput: (chunk: Buffer) => void = () => {}) {
  let text = "";
  return {
    write: (chunk: Buffer) => {
      text += chunk.toString("utf8");
      onOutput(chunk);
    },
    end: () => ({ text, whole: true, totalBytes: text.length }),
  };
}

function run(name: string, input: Record<string, unknown>, signal = new AbortController().signal) {
  const tails: string[] = [];
  const host = new ToolHost({
    tools: new Map([tool("bash"), tool("read", 1000)].map((one) => [one.name, one])),
    outputs: { record } as unknown as ToolHostOptions["outputs"],
    clock,
    logger: silentLogger,
  });
  const result = host.run({ id: "a", name, input }, signal, (tail) =>
    tails.push(tail.toString("utf8")),
  );
  return { result, tails };
}

it("gives what was printed, and tells it while the call runs", async () => {
  const { result, tails } = run("bash", { text: "x" });
  running?.output.write(Buffer.from("out"));
  expect(tails).toEqual(["out"]);
  finish(OK);

  expect(await result).toEqual({
    content: "out",
    is_error: false,
    aborted: false,
    outputBytes: 3,
  });
});

it("answers a name that no tool has with the names there are", async () => {
  const { content, is_error } = await run("rm", { text: "x" }).result;

  expect(is_error).toBe(true);
  expect(content).toBe('there is no tool "rm" in this sandbox; it has bash, read');
});

it("answers an input that does not fit with the field, and runs nothing", async () => {
  const { content, is_error } = await run("bash", { text: 5 }).result;

  expect(is_error).toBe(true);
  expect(content).toMatch(/^bash: the input does not fit: `text`: .*string/);
  expect(running).toBeUndefined();
});

it("gives a call up that outlasts the deadline of its tool", async () => {
  const { result } = run("read", { text: "x" });
  await clock.advance(1000);

  expect(await result).toMatchObject({
    content: "read did not finish within 1000 ms",
    is_error: true,
    aborted: false,
  });
});

it("tells nothing of our insides when a tool breaks", async () => {
  const { result } = run("bash", { text: "x" });
  finish(Promise.reject(new Error("/host/path/secret.ts")) as unknown as ToolEnd);

  expect((await result).content).toBe("bash failed inside the sandbox; this is a bug of the tool");
});

it("says of a call that was stopped that it was", async () => {
  const stop = new AbortController();
  const { result } = run("bash", { text: "x" }, stop.signal);
  stop.abort(new Error("cancelled"));

  expect(await result).toMatchObject({ content: "stopped", aborted: true });
});
