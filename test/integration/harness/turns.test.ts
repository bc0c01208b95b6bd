import { afterEach, beforeEach, describe, expect, it } from "@jest/globals";
import { eventsOf, HarnessBed, typesOf } from "../harness-bed.ts";
import { expectInvariants } from "./invariants.ts";

const SCRIPT = `
scenarios:
  slow:
    turns:
      - { say: "one two three four five six seven eight nine ten ", repeat: 20, tokensPerSecond: 100 }
      - { expect: { contains: next }, say: After the interrupt. }
  long-tool:
    turns:
      - tools:
          - { name: bash, input: { command: "echo begun >> effects; sleep 60; echo ended >> effects" } }
          - { name: bash, input: { command: "sleep 60" } }
      - { expect: { contains: next, isError: true }, say: Going on. }
  command:
    turns:
      - tools: [{ name: bash, input: { command: "echo begun >> effects; sleep 2; echo ended >> effects; cat effects" } }]
      - { say: Over. }
  big:
    contextWindowTokens: 6000
    summary: It was about numbers.
    turns:
      - tools: [{ name: bash, input: { command: "seq 1 1200" } }]
      - tools: [{ name: bash, input: { command: "seq 1 1200" } }]
      - tools: [{ name: bash, input: { command: "seq 1 1200" } }]
      - tools: [{ name: bash, input: { command: "seq 1 1200" } }]
      - { expect: { contains: "1200" }, say: Counted. }
  too-big:
    contextWindowTokens: 3000
    turns:
      - { say: Never said. }
  strange:
    turns:
      - { think: Only thinking. }
      - { say: "", tools: [{ name: bash, input: { command: "true" } }] }
      - { stopReason: end_turn }
      - { say: Fine. }
  unknown-tool:
    turns:
      - tools: [{ name: rm_rf, input: {}, unoffered: true }]
      - { expect: { contains: "There is no tool", isError: true }, say: Then not. }
  refused:
    turns: [{ stopReason: refusal }]
`;

let rig: HarnessBed;

beforeEach(async () => {
  rig = new HarnessBed();
  await rig.start(SCRIPT);
});

afterEach(() => rig.stop());

describe("an interrupt", () => {
  it("in the middle of an answer keeps the text the user saw and ends the turn", async () => {
    rig.startWorker();
    const ref = await rig.createSession("go", { model: "scripted:slow" });
    const seen = await firstDelta(ref);
    await rig.send(ref, "user.interrupt", {});

    const events = await rig.idle(ref);

    const end = eventsOf(events, "model.request_end")[0];
    expect(end?.data).toMatchObject({ stop_reason: "interrupted", partial: true });
    expect(end?.id).toBe(seen.eventId);
    expect(String(end?.data.message[0]?.["text"])).toMatch(/^one two/);
    expect(eventsOf(events, "session.status_idle")[0]?.data.stop_reason).toBe("interrupted");
    await rig.say(ref, "next");
    const later = await rig.idle(ref, 2);
    expectInvariants(later, await rig.requests());
  });

  it("stops running commands, and the session goes on with the next message", async () => {
    rig.startWorker();
    const ref = await rig.createSession("go", { model: "scripted:long-tool" });
    await rig.until(ref, "the command", () => exists(() => rig.file(ref, "effects")));
    await rig.send(ref, "user.interrupt", {});
    await rig.idle(ref);
    await rig.say(ref, "next");

    const events = await rig.idle(ref, 2);

    expect(eventsOf(events, "tool.result").map((event) => event.data.outcome)).toEqual([
      "cancelled",
      "cancelled",
    ]);
    expect(rig.file(ref, "effects")).toBe("begun\n");
    expectInvariants(events, await rig.requests());
  });
});

describe("a message", () => {
  it("that arrives during an answer is seen by the next request of the same turn", async () => {
    rig.startWorker();
    const ref = await rig.createSession("go", { model: "scripted:slow" });
    await firstDelta(ref);
    await rig.say(ref, "next");

    const events = await rig.idle(ref);

    expect(eventsOf(events, "model.request_end")).toHaveLength(2);
    expectInvariants(events, await rig.requests());
  });
});

describe("control", () => {
  it("a stop ends the session in the middle of an answer and leaves nothing open", async () => {
    rig.startWorker();
    const ref = await rig.createSession("go", { model: "scripted:slow" });
    await firstDelta(ref);
    await rig.send(ref, "session.stop_requested", { reason: "stop" });

    const events = await rig.until(ref, "the end", (all) =>
      typesOf(all).includes("session.terminated"),
    );

    expectInvariants(events, await rig.requests());
    expect((await rig.store.log.getSession(ref))?.head).toMatchObject({
      status: "terminated",
      why: "stop",
    });
  });

  it("a suspended session rests until it is resumed", async () => {
    rig.startWorker();
    const ref = await rig.createSession("go", { model: "scripted:slow" });
    await firstDelta(ref);
    await rig.send(ref, "session.suspend_requested", {});
    await rig.say(ref, "next");
    await rig.until(ref, "the answer", (all) => typesOf(all).includes("model.request_end"));
    await statusIs(ref, "suspended");
    await rig.send(ref, "session.resume_requested", {});

    const events = await rig.idle(ref);

    expect(eventsOf(events, "model.request_end")).toHaveLength(2);
  });
});

describe("a session that is suspended during a command", () => {
  it("rests at once, and finds the command's result when it is resumed", async () => {
    rig.startWorker();
    const ref = await rig.createSession("go", { model: "scripted:command" });
    await rig.until(ref, "the command", () => exists(() => rig.file(ref, "effects")));
    await rig.send(ref, "session.suspend_requested", {});
    await statusIs(ref, "suspended");
    expect(typesOf(await rig.events(ref))).not.toContain("tool.result");
    await rig.send(ref, "session.resume_requested", {});

    const events = await rig.idle(ref);

    expect(eventsOf(events, "tool.result")[0]?.data).toMatchObject({ content: "begun\nended" });
    expect(rig.file(ref, "effects")).toBe("begun\nended\n");
    expectInvariants(events, await rig.requests());
  });
});

describe("a worker that is told to stop", () => {
  it("hands a running command over, and another worker takes its result", async () => {
    const first = rig.startWorker();
    const ref = await rig.createSession("go", { model: "scripted:long-tool" });
    await rig.until(ref, "the command", () => exists(() => rig.file(ref, "effects")));
    const started = performance.now();
    await first.stop();
    expect(performance.now() - started).toBeLessThan(4000);
    expect(first.worker.state).toBe("stopped");
    rig.startWorker();
    await rig.until(ref, "the next epoch", async () => {
      const state = await rig.store.operator.statusOf([ref]);
      return state[0]?.epoch === 2 && state[0].leased;
    });
    await rig.send(ref, "user.interrupt", {});
    await rig.idle(ref);
    await rig.say(ref, "next");

    const events = await rig.idle(ref, 2);

    expect(eventsOf(events, "tool.intent")).toHaveLength(2);
    expect(rig.file(ref, "effects")).toBe("begun\n");
    expectInvariants(events, await rig.requests());
  });

  it("breaks an answer off when the grace is over, and another worker asks again", async () => {
    const first = rig.startWorker({ options: { graceMs: 100 } });
    const ref = await rig.createSession("go", { model: "scripted:slow" });
    await firstDelta(ref);
    await first.stop();
    rig.startWorker();

    const events = await rig.idle(ref);

    expect(eventsOf(events, "model.request_abandoned")[0]?.data.reason).toBe("handed_over");
    expectInvariants(events, await rig.requests());
  });
});

describe("a context near the window", () => {
  it("is compacted, the log stays whole, and the work goes on", async () => {
    rig.startWorker();
    const ref = await rig.createSession("count", {
      model: "scripted:big",
      contextWindowTokens: 6000,
      maxOutputTokens: 500,
    });

    const events = await rig.idle(ref);

    expect(eventsOf(events, "session.status_idle")[0]?.data.stop_reason).toBe("end_turn");
    expect(eventsOf(events, "context.compacted").length).toBeGreaterThan(0);
    expect(eventsOf(events, "context.compacted")[0]?.data.summary).toContain("numbers");
    expectInvariants(events, await rig.requests());
  });

  it("that cannot be made to fit ends the turn with the reason", async () => {
    rig.startWorker();
    const ref = await rig.createSession("words ".repeat(4000), {
      model: "scripted:too-big",
      contextWindowTokens: 3000,
      maxOutputTokens: 500,
    });

    const events = await rig.idle(ref);

    expect(eventsOf(events, "session.error")[0]?.data).toMatchObject({
      type: "compaction_limit_reached_error",
      retry_status: "exhausted",
    });
    expect(eventsOf(events, "session.status_idle")[0]?.data.stop_reason).toBe("retries_exhausted");
  });
});

describe("strange answers", () => {
  it("of thinking only, with empty text, and without content keep the session usable", async () => {
    rig.startWorker();
    const ref = await rig.createSession("a", { model: "scripted:strange" });
    await rig.idle(ref);
    await rig.say(ref, "b");
    const events = await rig.idle(ref, 2);

    const texts = (await rig.requests()).map((request) => request.outcome);
    expect(texts).toEqual(texts.map(() => "answered"));
    expect(eventsOf(events, "tool.result")).toHaveLength(0);
  });

  it("that name an unknown tool get an error the model can read", async () => {
    rig.startWorker();
    const ref = await rig.createSession("go", { model: "scripted:unknown-tool" });

    const events = await rig.idle(ref);

    expect(eventsOf(events, "tool.intent")[0]?.data.permission).toBe("deny");
    expect(eventsOf(events, "tool.result")[0]?.data.outcome).toBe("denied");
    expect(eventsOf(events, "session.status_idle")[0]?.data.stop_reason).toBe("end_turn");
  });

  it("that refuse end the turn as refused", async () => {
    rig.startWorker();
    const ref = await rig.createSession("go", { model: "scripted:refused" });

    const events = await rig.idle(ref);

    expect(eventsOf(events, "session.status_idle")[0]?.data.stop_reason).toBe("refusal");
  });
});

async function firstDelta(ref: { tenant: string; id: string }): Promise<{ eventId: string }> {
  const enough = new AbortController();
  try {
    const tail = rig.store.log.tailEvents(ref, {
      after: null,
      deltas: true,
      signal: enough.signal,
    });
    for await (const item of tail) if (item.kind === "delta") return { eventId: item.eventId };
  } finally {
    enough.abort();
  }
  throw new Error("no delta");
}

async function statusIs(ref: { tenant: string; id: string }, status: string): Promise<void> {
  await rig.until(
    ref,
    status,
    async () => (await rig.store.log.getSession(ref))?.head.status === status,
  );
}

function exists(read: () => string): boolean {
  try {
    return read() !== "";
  } catch {
    return false;
  }
}
