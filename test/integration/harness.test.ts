import { afterEach, beforeEach, describe, expect, it } from "@jest/globals";
import { eventsOf, HarnessBed, typesOf } from "./harness-bed.ts";

const SCRIPT = `
scenarios:
  hello:
    turns:
      - { think: Hm., say: Hello to you. }
      - { expect: { contains: again }, say: Hello again. }
  tools:
    turns:
      - say: I run two commands.
        tools:
          - { name: bash, input: { command: "sleep 0.3; echo one >> effects; echo ONE" } }
          - { name: bash, input: { command: "echo two >> effects" } }
          - { name: glob, input: { pattern: "*.none" } }
      - expect: { contains: [ONE, "(no output)"], results: 3, isError: false }
        tools: [{ name: session_events, input: { after: 0 } }]
      - expect: { contains: I run two commands }
        say: Done.
`;

let bed: HarnessBed;

beforeEach(async () => {
  bed = new HarnessBed();
  await bed.start(SCRIPT);
});

afterEach(() => bed.stop());

describe("a turn", () => {
  it("asks the model, records its answer and goes idle; the next message goes on", async () => {
    bed.startWorker();
    const ref = await bed.createSession("hi", { model: "scripted:hello" });
    await bed.idle(ref);
    await bed.say(ref, "and again");

    const events = await bed.idle(ref, 2);

    expect(typesOf(events)).toEqual([
      "session.created",
      "user.message",
      "model.request_start",
      "model.request_end",
      "session.status_idle",
      "user.message",
      "model.request_start",
      "model.request_end",
      "session.status_idle",
    ]);
    expect((await bed.store.log.getSession(ref))?.head).toMatchObject({
      status: "idle",
      why: "end_turn",
    });
  });

  it("runs tool calls side by side, commands in order, and shows the model the results", async () => {
    const running = bed.startWorker();
    const ref = await bed.createSession("go", { model: "scripted:tools" });

    const events = await bed.idle(ref);

    expect(eventsOf(events, "session.status_idle")[0]?.data.stop_reason).toBe("end_turn");
    expect(eventsOf(events, "sandbox.requested")).toHaveLength(1);
    expect(eventsOf(events, "tool.result").map((event) => event.data.outcome)).toEqual([
      "known",
      "known",
      "known",
      "known",
    ]);
    expect(bed.file(ref, "effects")).toBe("one\ntwo\n");
    expect(await bed.metric(running, 'drover_tool_calls_total{tool="bash",outcome="known"}')).toBe(
      2,
    );
  });
});
