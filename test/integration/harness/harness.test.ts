import { afterEach, beforeEach, describe, expect, it } from "@jest/globals";
import { eventsOf, HarnessBed, typesOf } from "../harness-bed.ts";

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

let rig: HarnessBed;

beforeEach(async () => {
  rig = new HarnessBed();
  await rig.start(SCRIPT);
});

afterEach(() => rig.stop());

describe("a turn", () => {
  it("asks the model, records its answer and goes idle; the next message goes on", async () => {
    rig.startWorker();
    const ref = await rig.createSession("hi", { model: "scripted:hello" });
    await rig.idle(ref);
    await rig.say(ref, "and again");

    const events = await rig.idle(ref, 2);

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
    expect((await rig.store.log.getSession(ref))?.head).toMatchObject({
      status: "idle",
      why: "end_turn",
    });
  });

  it("runs tool calls side by side, commands in order, and shows the model the results", async () => {
    const running = rig.startWorker();
    const ref = await rig.createSession("go", { model: "scripted:tools" });

    const events = await rig.idle(ref);

    expect(eventsOf(events, "session.status_idle")[0]?.data.stop_reason).toBe("end_turn");
    expect(eventsOf(events, "sandbox.requested")).toHaveLength(1);
    expect(eventsOf(events, "tool.result").map((event) => event.data.outcome)).toEqual([
      "known",
      "known",
      "known",
      "known",
    ]);
    expect(rig.file(ref, "effects")).toBe("one\ntwo\n");
    expect(await rig.metric(running, 'drover_tool_calls_total{tool="bash",outcome="known"}')).toBe(
      2,
    );
  });
});
