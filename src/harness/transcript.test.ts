import { describe, expect, it } from "@jest/globals";
import { EventLog } from "../../test/builders/event-log.ts";
import { parseExact } from "../protocol/exact-json.ts";
import { buildTranscript, withCacheBreakpoints } from "./transcript.ts";

/** Roles and texts, short enough to read in a table. */
function shown(log: EventLog, upto = log.seq): string[] {
  return buildTranscript(log.events, upto).map(({ role, content }) => {
    const parts = content.map((block) => {
      if (block.type === "tool_use") return `call ${String(block["id"])}`;
      if (block.type !== "tool_result")
        return typeof block.text === "string" ? block.text : block.type;
      const error = block["is_error"] === true ? "!" : "";
      return `${String(block["tool_use_id"])}${error}=${String(block["content"])}`;
    });
    return `${role}: ${parts.join(" | ")}`;
  });
}

const log = () => new EventLog();

describe("a transcript", () => {
  it.each([
    { name: "a message", given: log().say("hi"), want: ["user: hi"] },
    {
      name: "a call and its result",
      given: log().say("hi").ask().call(["t"]).result("t", "out"),
      want: ["user: hi", "assistant: call t", "user: t=out"],
    },
    {
      name: "results in the order of the calls, errors marked, before new messages",
      given: log()
        .say("hi")
        .ask()
        .call(["t", "u"])
        .result("u", "second", { is_error: true })
        .say("more")
        .result("t", "first"),
      want: ["user: hi", "assistant: call t | call u", "user: t=first | u!=second | more"],
    },
    {
      name: "a message that arrived while the model answered, after the answer",
      given: log().say("hi").ask().say("late").answer("x"),
      want: ["user: hi", "assistant: x", "user: late"],
    },
    {
      name: "an abandoned request as if it had never been",
      given: log().say("hi").ask().abandon().ask().answer("x").say("go"),
      want: ["user: hi", "assistant: x", "user: go"],
    },
    {
      name: "a call without a result with an error in its place",
      given: log().say("hi").ask().call(["t"]),
      want: [
        "user: hi",
        "assistant: call t",
        "user: t!=This call was never finished; nothing is known about its effect.",
      ],
    },
    {
      name: "a silent tool with a short note",
      given: log().say("hi").ask().call(["t"]).result("t", ""),
      want: ["user: hi", "assistant: call t", "user: t=(no output)"],
    },
    {
      name: "an answer of thinking only as nothing",
      given: log()
        .say("hi")
        .ask()
        .answer([{ type: "thinking", thinking: "x", signature: "s" }])
        .say("go"),
      want: ["user: hi | go"],
    },
    {
      name: "blank text beside a call left out",
      given: log()
        .say("hi")
        .ask()
        .answer([
          { type: "text", text: "" },
          { type: "tool_use", id: "t", name: "bash", input: {} },
        ])
        .result("t"),
      want: ["user: hi", "assistant: call t", "user: t=ok"],
    },
    {
      name: "an answer without content as nothing",
      given: log().say("hi").ask().answer([]).say("go"),
      want: ["user: hi | go"],
    },
    {
      name: "the text that an interrupt left",
      given: log().say("hi").ask().answer("par", { partial: true }).say("go"),
      want: ["user: hi", "assistant: par", "user: go"],
    },
    {
      name: "that an answer was cut, so that the model goes on",
      given: log().say("hi").ask().answer("The three", { stop_reason: "max_tokens" }),
      want: [
        "user: hi",
        "assistant: The three",
        "user: (Your answer was cut off here: it reached its length limit. Go on exactly where it stopped.)",
      ],
    },
    {
      name: "a call that was cut by its result alone",
      given: log().say("hi").ask().call(["t"], {}, "max_tokens").result("t", "cut"),
      want: ["user: hi", "assistant: call t", "user: t=cut"],
    },
    {
      name: "nothing of blocks that this version does not know",
      given: log()
        .say("hi")
        .ask()
        .answer([{ type: "hologram" }, { type: "text", text: "x" }])
        .say("go"),
      want: ["user: hi", "assistant: x", "user: go"],
    },
    {
      name: "a system message, marked",
      given: log()
        .say("hi")
        .add("system.message", { content: [{ type: "text", text: "be brief" }] }),
      want: ["user: hi | <system>\nbe brief\n</system>"],
    },
    {
      name: "the first of two results of a custom call, named by its event",
      given: log()
        .say("hi")
        .ask()
        .call(["t"], { target: "custom" })
        .add("user.custom_tool_result", {
          custom_tool_use_id: "sevt_4",
          content: [{ type: "text", text: "mine" }],
        })
        .result("t", "late"),
      want: ["user: hi", "assistant: call t", "user: t=mine"],
    },
    {
      name: "a summary in the place of what it covers",
      given: log()
        .say("hi")
        .ask()
        .call(["t"])
        .result("t")
        .ask()
        .answer("kept")
        .add("context.compacted", { from: 1, to: 5, summary: "SUM" })
        .say("go"),
      want: [
        "user: The conversation before this point has been replaced by a summary; the session's log still holds all of it.\n\nSUM",
        "assistant: kept",
        "user: go",
      ],
    },
  ])("shows $name", ({ given, want }) => {
    expect(shown(given)).toEqual(want);
  });

  it("of an earlier request does not change when the log grows", () => {
    const given = log().say("hi").ask().call(["t"]).result("t");
    const before = shown(given);
    const { seq } = given;

    given.say("late").ask(seq).answer("x").say("more");

    expect(shown(given, seq)).toEqual(before);
  });

  it("shows results as short as the request that first had to cut them, and says so", () => {
    const given = log().say("hi").ask().call(["t"]).result("t", "x".repeat(5000));
    const { seq } = given;

    given.add("model.request_start", { req: "r", upto: seq, model: "m", result_chars: 600 });
    given.answer("y").ask().call(["u"]).result("u", "z".repeat(5000));

    const text = shown(given).join("\n");
    expect(text).toMatch(/t=\[This result is shortened: .* characters left out …\]/s);
    expect(text).toContain("z".repeat(5000));
    expect(text.length).toBeLessThan(7000);
    expect(shown(given, seq).join("")).toContain("This result is shortened");
  });

  it("keeps the digits of numbers in calls", () => {
    const input = parseExact('{"id":1234567890123456789,"price":10.0}');
    const given = log()
      .say("hi")
      .ask()
      .answer([{ type: "tool_use", id: "t", name: "get", input }])
      .result("t");

    expect(JSON.stringify(buildTranscript(given.events, given.seq))).toContain(
      '"input":{"id":1234567890123456789,"price":10.0}',
    );
  });

  it("holds no half surrogate pair, wherever it came from", () => {
    const half = "x\ud83d";
    const given = log()
      .say(half)
      .ask()
      .answer([
        { type: "text", text: half },
        { type: "tool_use", id: "t", name: "bash", input: { [half]: [half] } },
      ])
      .result("t", half);

    const text = JSON.stringify(buildTranscript(given.events, given.seq));

    expect(text).not.toMatch(/\\ud83d/);
    expect(text).toContain("x\ufffd");
  });

  it("is marked for the cache at its last two user messages", () => {
    const given = log().say("a").ask().answer("b").say("c").ask().answer("d").say("e");

    const marked = withCacheBreakpoints(buildTranscript(given.events, given.seq)).map(
      ({ content }) => content.at(-1)?.["cache_control"] !== undefined,
    );

    expect(marked).toEqual([false, false, true, false, true]);
  });
});
