import { type Duplex, duplexPair } from "node:stream";
import { beforeEach, describe, expect, it } from "@jest/globals";
import { FakeClock } from "../../test/fakes/fake-clock.ts";
import { silentLogger } from "../runtime/logger.ts";
import { encodeFrame, FrameReader } from "./frames.ts";
import { RunnerLink } from "./runner-link.ts";
import { MAX_FROM_RUNNER_BYTES } from "./runner-protocol.ts";

let clock: FakeClock;
let link: RunnerLink;
let runner: Duplex;
let attached: Promise<void>;
/** What the runner was sent. */
let asked: { t: string; call?: number; reason?: string }[];

beforeEach(() => {
  clock = new FakeClock();
  link = new RunnerLink({ clock, logger: silentLogger });
  connect();
});

function connect(): void {
  const [ours, theirs] = duplexPair();
  attached = link.attach(ours);
  runner = theirs;
  const received: typeof asked = [];
  asked = received;
  const reader = new FrameReader(1_000_000);
  runner.on("data", (chunk: Buffer) => received.push(...([...reader.push(chunk)] as typeof asked)));
  runner.on("error", () => {});
}

/** Lets the streams pass on what was written. */
const settle = () => new Promise((resolve) => setImmediate(() => setImmediate(resolve)));

async function says(...messages: unknown[]): Promise<void> {
  for (const message of messages) runner.write(encodeFrame(message));
  await settle();
}

const never = new AbortController().signal;
const RESULT = { content: "out", is_error: false, aborted: false, outputBytes: 3 };
const run = (tails: string[] = [], signal = never) =>
  link.run({ id: "a", name: "bash", input: {} }, signal, (tail) => tails.push(tail.toString()));

describe("a runner", () => {
  it("takes calls once it has said hello", async () => {
    expect(link.problem).toContain("is not there");
    const waiting = link.ready(never);
    await says({ t: "hello" });
    await waiting;

    expect(link.problem).toBeUndefined();
  });

  it("is waited for, not for ever", async () => {
    const waiting = link.ready(never).catch((error: unknown) => error);
    await clock.advance(30_000);

    expect(await waiting).toMatchObject({ code: "UNAVAILABLE", retryable: true });
  });

  it("is not waited for by a call that is stopped", async () => {
    const stop = new AbortController();
    const waiting = link.ready(stop.signal);
    stop.abort();

    await expect(waiting).resolves.toBeUndefined();
  });

  it("tells what a call prints and how it ends, and is told to stop it", async () => {
    await says({ t: "hello" });
    const stop = new AbortController();
    const tails: string[] = [];
    const result = run(tails, stop.signal);
    stop.abort(new Error("cancelled"));
    await settle();
    const tail = Buffer.from("printed").toString("base64");
    await says({ t: "tail", call: 1, tail }, { t: "result", call: 1, result: RESULT });

    expect(asked).toEqual([
      { t: "ping" },
      { t: "run", call: 1, id: "a", name: "bash", input: {} },
      { t: "cancel", call: 1, reason: "cancelled" },
    ]);
    expect(tails).toEqual(["printed"]);
    expect(await result).toEqual(RESULT);
  });

  it("that goes takes its calls along; the next one takes new ones", async () => {
    await says({ t: "hello" });
    const lost = run();
    runner.destroy();
    await attached;
    const before = link.problem;
    connect();
    await says({ t: "hello" });
    const next = run();
    await says({ t: "result", call: 2, result: RESULT });

    expect(await lost).toBe("lost");
    expect(before).toContain("is not there");
    expect(await next).toEqual(RESULT);
  });
});

describe("what comes from a runner", () => {
  it.each([
    ["is of no known kind", encodeFrame({ t: "execute", call: 1 })],
    ["has a field of another type", encodeFrame({ t: "result", call: 1, result: "forged" })],
    ["tells more than a tail", encodeFrame({ t: "tail", call: 1, tail: "A".repeat(40_000) })],
    ["is no JSON", Buffer.from([0, 0, 0, 1, 0x7b])],
    ["announces more than is taken", Buffer.from([0xff, 0xff, 0xff, 0xff])],
    ["is larger than any result", encodeFrame({ t: "x".repeat(MAX_FROM_RUNNER_BYTES) })],
  ])("ends the connection when it %s", async (_name, bytes) => {
    await says({ t: "hello" });
    const result = run();
    runner.write(bytes);
    await attached;

    expect(await result).toBe("lost");
    expect(link.problem).toContain("is not there");
  });

  it("about a call that nobody made changes nothing", async () => {
    await says({ t: "hello" });
    const result = run();
    await says({ t: "result", call: 7, result: { ...RESULT, content: "forged" } });
    await says({ t: "result", call: 1, result: RESULT });
    await says({ t: "result", call: 1, result: { ...RESULT, content: "too late" } });

    expect(await result).toEqual(RESULT);
    expect(link.problem).toBeUndefined();
  });
});

describe("a runner that does not answer", () => {
  it("loses its calls, keeps its place, and is taken back when it answers", async () => {
    await says({ t: "hello" });
    const result = run();
    for (let seconds = 0; seconds < 80; seconds += 10) await clock.advance(10_000);

    expect(await result).toBe("lost");
    expect(link.problem).toContain("does not answer");
    await expect(link.attach(duplexPair()[0])).rejects.toMatchObject({ code: "INTERNAL" });
    await settle();
    expect(asked).toContainEqual({ t: "cancel", call: 1, reason: "lost" });

    await says({ t: "pong" });
    expect(link.problem).toBeUndefined();
  });

  it("is heard as long as it answers", async () => {
    await says({ t: "hello" });
    for (let seconds = 0; seconds < 120; seconds += 10) {
      await clock.advance(10_000);
      await says({ t: "pong" });
    }

    expect(link.problem).toBeUndefined();
  });
});
