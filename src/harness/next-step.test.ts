import { describe, expect, it } from "@jest/globals";
import { EventLog } from "../../test/builders/event-log.ts";
import { nextStep } from "./next-step.ts";
import { applyEvent, emptyState, placeOf, type SessionState } from "./session-state.ts";

function stateOf(log: EventLog): SessionState {
  const state = emptyState();
  for (const event of log.events) applyEvent(state, event);
  return state;
}

const log = () => new EventLog();
const cutAnswers = (times: number) => {
  const given = log().say("hi");
  for (let i = 0; i < times; i += 1) given.ask().answer("so", { stop_reason: "max_tokens" });
  return given;
};
const sandbox = { hand: "sandbox", generation: 1 };
const provisioned = { ...sandbox, sandboxId: "s", address: "a:1" };

describe("the next step", () => {
  it.each([
    { name: "a new message", given: log().say("hi"), want: { kind: "request" } },
    {
      name: "no message at all",
      given: log().add("session.created", { agent: "a", agentRevision: "r" }),
      want: { kind: "idle", append: false },
    },
    { name: "an open request", given: log().say("hi").ask(), want: { kind: "abandon" } },
    {
      name: "an abandoned request",
      given: log().say("hi").ask().abandon(),
      want: { kind: "request" },
    },
    {
      name: "an answer",
      given: log().say("hi").ask().answer("x"),
      want: { kind: "idle", reason: "end_turn", append: true },
    },
    {
      name: "an idle session",
      given: log().say("hi").ask().answer("x").idle(),
      want: { kind: "idle", append: false },
    },
    {
      name: "a message that the answer did not see",
      given: log().say("hi").ask().say("more").answer("x"),
      want: { kind: "request" },
    },
    { name: "a call", given: log().say("hi").ask().call(["t"]), want: { kind: "tools" } },
    {
      name: "one of two results",
      given: log().say("hi").ask().call(["t", "u"]).result("t"),
      want: { kind: "tools" },
    },
    {
      name: "all results",
      given: log().say("hi").ask().call(["t"]).result("t"),
      want: { kind: "request" },
    },
    {
      name: "a call that asks",
      given: log().say("hi").ask().call(["t"], { permission: "ask" }),
      want: { kind: "idle", reason: "requires_action", append: true },
    },
    {
      name: "a permission",
      given: log()
        .say("hi")
        .ask()
        .call(["t"], { permission: "ask" })
        .idle("requires_action")
        .add("user.tool_confirmation", { tool_use_id: "sevt_4", result: "allow" }),
      want: { kind: "tools" },
    },
    {
      name: "a custom call",
      given: log().say("hi").ask().call(["t"], { target: "custom" }),
      want: { kind: "idle", reason: "requires_action" },
    },
    {
      name: "a custom result",
      given: log()
        .say("hi")
        .ask()
        .call(["t"], { target: "custom" })
        .idle("requires_action")
        .add("user.custom_tool_result", { custom_tool_use_id: "sevt_4", content: [] }),
      want: { kind: "request" },
    },
    {
      name: "one of two custom results",
      given: log()
        .say("hi")
        .ask()
        .call(["t", "u"], { target: "custom" })
        .idle("requires_action")
        .add("user.custom_tool_result", { custom_tool_use_id: "t", content: [] }),
      want: { kind: "idle", reason: "requires_action", append: true },
    },
    {
      name: "a refusal",
      given: log().say("hi").ask().answer([], { stop_reason: "refusal" }),
      want: { kind: "idle", reason: "refusal" },
    },
    {
      name: "an answer that reached its length limit",
      given: log().say("hi").ask().answer("so", { stop_reason: "max_tokens" }),
      want: { kind: "request" },
    },
    {
      name: "an answer that filled the window",
      given: log().say("hi").ask().answer("so", { stop_reason: "model_context_window_exceeded" }),
      want: { kind: "request" },
    },
    {
      name: "a turn that the endpoint paused",
      given: log().say("hi").ask().answer("so", { stop_reason: "pause_turn" }),
      want: { kind: "request" },
    },
    {
      name: "the fifth answer in a row that was cut",
      given: cutAnswers(5),
      want: { kind: "request" },
    },
    {
      name: "the sixth answer in a row that was cut",
      given: cutAnswers(6),
      want: { kind: "idle", reason: "retries_exhausted", append: true },
    },
    {
      name: "the sixth call in a row that was cut",
      given: cutAnswers(5)
        .ask()
        .call(["t"], {}, "max_tokens")
        .result("t", "cut", { is_error: true }),
      want: { kind: "idle", reason: "retries_exhausted", append: true },
    },
    {
      name: "a message after them",
      given: cutAnswers(6).idle("retries_exhausted").say("go"),
      want: { kind: "request" },
    },
    {
      name: "a cut answer of a turn that is over",
      given: log().say("hi").ask().answer("so", { stop_reason: "max_tokens" }).idle(),
      want: { kind: "idle", append: false },
    },
    {
      name: "a stop reason of times to come",
      given: log().say("hi").ask().answer("so", { stop_reason: "out_of_ideas" }),
      want: { kind: "idle", reason: "end_turn", append: true },
    },
    {
      name: "a request to suspend while a call that was sent has no result",
      given: log()
        .say("hi")
        .ask()
        .call(["t"], { target: "mcp", class: "at_most_once" })
        .add("tool.started", { id: "t" })
        .add("session.suspend_requested", {}),
      want: { kind: "tools" },
    },
    {
      name: "a turn that was given up",
      given: log().say("hi").ask().abandon().idle("retries_exhausted"),
      want: { kind: "idle", reason: "retries_exhausted", append: false },
    },
    {
      name: "a message after a turn that was given up",
      given: log().say("hi").ask().abandon().idle("retries_exhausted").say("go"),
      want: { kind: "request" },
    },
    {
      name: "a request to stop, whatever is open",
      given: log().say("hi").ask().call(["t"]).add("session.stop_requested", { reason: "stop" }),
      want: { kind: "terminate", reason: "stop" },
    },
    {
      name: "a request to suspend",
      given: log().say("hi").add("session.suspend_requested", {}),
      want: { kind: "suspend" },
    },
    {
      name: "suspended and resumed",
      given: log()
        .say("hi")
        .add("session.suspend_requested", {})
        .add("session.resume_requested", {}),
      want: { kind: "request" },
    },
    {
      name: "a terminated session",
      given: log().say("hi").add("session.terminated", { reason: "stop" }),
      want: { kind: "closed" },
    },
  ])("for $name", ({ given, want }) => {
    expect(nextStep(stateOf(given))).toMatchObject(want);
  });
});

describe("an interrupt", () => {
  const interrupted = (given: EventLog) => given.add("user.interrupt", {});

  it.each([
    {
      name: "ends the turn whose request it broke off",
      given: interrupted(log().say("hi").ask()).answer("par", {
        partial: true,
        stop_reason: "interrupted",
      }),
      want: { kind: "idle", reason: "interrupted", append: true },
    },
    {
      name: "ends the turn of a request that its worker did not survive",
      given: interrupted(log().say("hi").ask()).abandon(),
      want: { kind: "idle", reason: "interrupted" },
    },
    {
      name: "ends a turn that waits to try again",
      given: interrupted(log().say("hi").ask().abandon()),
      want: { kind: "idle", reason: "interrupted" },
    },
    {
      name: "settles pending calls first",
      given: interrupted(log().say("hi").ask().call(["t"])),
      want: { kind: "tools" },
    },
    {
      name: "does not let the cancelled results start a request",
      given: interrupted(log().say("hi").ask().call(["t"])).result("t", "x", {
        outcome: "cancelled",
      }),
      want: { kind: "idle", reason: "interrupted" },
    },
    {
      name: "lets a message that waited start the next turn",
      given: interrupted(log().say("hi").ask().say("next")).answer("x", { partial: true }),
      want: { kind: "request" },
    },
    {
      name: "lets a message after it start the next turn",
      given: interrupted(log().say("hi").ask()).say("next").answer("x", { partial: true }),
      want: { kind: "request" },
    },
    {
      name: "changes nothing on an idle session",
      given: interrupted(log().say("hi").ask().answer("x").idle()),
      want: { kind: "idle", reason: "end_turn", append: false },
    },
    {
      name: "settles a call that waits for a client",
      given: interrupted(
        log().say("hi").ask().call(["t"], { target: "custom" }).idle("requires_action"),
      ),
      want: { kind: "tools" },
    },
  ])("$name", ({ given, want }) => {
    expect(nextStep(stateOf(given))).toMatchObject(want);
  });
});

describe("the sandbox of a call", () => {
  const asked = (given: EventLog) =>
    given.add("sandbox.requested", { ...sandbox, template: "node" });
  const ready = (given: EventLog) => given.add("sandbox.provisioned", provisioned);
  const lost = (given: EventLog) =>
    given.add("sandbox.lost", { ...sandbox, reason: "PodDeleted", message: "gone" });

  it.each([
    { name: "none", given: log(), seq: 5, want: { kind: "none", nextGeneration: 1 } },
    { name: "asked for", given: asked(log()), seq: 5, want: { kind: "starting" } },
    { name: "live at the call", given: ready(asked(log())), seq: 5, want: { kind: "live" } },
    { name: "live after the call", given: ready(asked(log())), seq: 0, want: { kind: "live" } },
    {
      name: "lost after the call",
      given: lost(ready(asked(log()))),
      seq: 2,
      want: { kind: "gone" },
    },
    {
      name: "never started",
      given: lost(asked(log())),
      seq: 0,
      want: { kind: "failed", record: { ended: { reason: "PodDeleted" } } },
    },
    {
      name: "lost before the call",
      given: lost(ready(asked(log()))),
      seq: 9,
      want: { kind: "none", nextGeneration: 2 },
    },
    {
      name: "lost, and a later generation is there",
      given: lost(ready(asked(log())))
        .add("sandbox.requested", { ...sandbox, generation: 2, template: "node" })
        .add("sandbox.provisioned", { ...provisioned, generation: 2 }),
      seq: 2,
      want: { kind: "gone" },
    },
  ])("is found when it is $name", ({ given, seq, want }) => {
    expect(placeOf(stateOf(given), "sandbox", seq)).toMatchObject(want);
  });

  it("keeps its first place in the log when it is announced again under another address", () => {
    const given = ready(asked(log())).add("sandbox.provisioned", {
      ...provisioned,
      address: "b:2",
    });

    expect(placeOf(stateOf(given), "sandbox", 9)).toMatchObject({
      kind: "live",
      record: { provisioned: { seq: 2, address: "b:2" } },
    });
  });
});
