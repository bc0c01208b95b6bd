import { describe, expect, it } from "@jest/globals";
import { brokenRule, type MessagesRequest, messagesRequest } from "./request.ts";
import { usageOf } from "./usage.ts";

type Messages = MessagesRequest["messages"];

const ask: Messages[number] = { role: "user", content: "hi" };
const call: Messages[number] = {
  role: "assistant",
  content: [{ type: "tool_use", id: "toolu_1", name: "bash", input: {} }],
};
const result = (id: string): Messages[number] => ({
  role: "user",
  content: [{ type: "tool_result", tool_use_id: id, content: "ok" }],
});
const text = (value: string, extra = {}) => ({ type: "text" as const, text: value, ...extra });

function check(messages: Messages, more: Partial<MessagesRequest> = {}): string | undefined {
  return brokenRule(messagesRequest.parse({ model: "m", max_tokens: 1, messages, ...more }));
}

const mark = { cache_control: { type: "ephemeral" as const } };
const tool = { name: "t", input_schema: { type: "object" as const } };

describe("a transcript", () => {
  it.each<[string, Messages]>([
    ["one message", [ask]],
    ["a call and its result", [ask, call, result("toolu_1")]],
    ["neighbours of one role", [ask, ask, call, result("toolu_1"), ask]],
    [
      "an empty tool result",
      [
        ask,
        call,
        { role: "user", content: [{ type: "tool_result", tool_use_id: "toolu_1", content: "" }] },
      ],
    ],
  ])("is accepted with %s", (_name, messages) => {
    expect(check(messages)).toBeUndefined();
  });

  it.each<[string, Messages, string]>([
    [
      "an unanswered call",
      [ask, call, ask],
      "without tool_result blocks immediately after: toolu_1",
    ],
    ["a stray result", [ask, result("toolu_9")], "unexpected tool_use_id"],
    ["a result given twice", [ask, call, result("toolu_1"), result("toolu_1")], "single result"],
    [
      "text before the result",
      [ask, call, { role: "user", content: [text("x"), ...resultBlocks()] }],
      "must come before other content",
    ],
    ["a call id used twice", [ask, call, result("toolu_1"), call, result("toolu_1")], "unique"],
    [
      "an answer last",
      [ask, { role: "assistant", content: "yes" }],
      "must end with a user message",
    ],
    ["an answer first", [{ role: "assistant", content: "yes" }, ask], "first message must use"],
    ["blank text", [{ role: "user", content: [text(" \n")] }], "non-whitespace"],
    ["no content", [{ role: "user", content: [] }], "non-empty content"],
    ["half an emoji", [{ role: "user", content: "a\ud83d" }], "no low surrogate"],
    [
      "five breakpoints",
      [{ role: "user", content: Array.from({ length: 5 }, () => text("x", mark)) }],
      "maximum of 4",
    ],
  ])("is refused with %s", (_name, messages, want) => {
    expect(check(messages)).toContain(want);
  });

  it("is refused when two tools have one name", () => {
    expect(check([ask], { tools: [tool, tool] })).toContain("unique");
  });

  it.each(["a.b", "", "x".repeat(129)])("is refused with a tool named %j", (name) => {
    const tools = [{ ...tool, name }];
    const parsed = messagesRequest.safeParse({ model: "m", max_tokens: 1, messages: [ask], tools });

    expect(parsed.success).toBe(false);
  });
});

describe("usage", () => {
  it("counts what the request before this one ended with as read from the cache", () => {
    const marked: Messages[number] = { role: "user", content: [text("next question", mark)] };
    const first = { messages: [{ role: "user" as const, content: [text("x".repeat(400), mark)] }] };
    const second = {
      messages: [...first.messages, { role: "assistant" as const, content: "ok" }, marked],
    };

    const [one, two] = [usageOf(first, 5), usageOf(second, 7)];

    expect(one).toMatchObject({ input_tokens: 0, cache_read_input_tokens: 0, output_tokens: 5 });
    expect(two.cache_read_input_tokens).toBe(one.cache_creation_input_tokens);
    expect(two.cache_creation_input_tokens).toBeGreaterThan(0);
  });
});

function resultBlocks() {
  const { content } = result("toolu_1");
  return typeof content === "string" ? [] : content;
}
