import { describe, expect, it } from "@jest/globals";
import { MessageAssembly } from "./message-assembly.ts";
import type { ModelAnswer } from "./model.ts";

const start = { type: "message_start", message: { usage: { input_tokens: 7, output_tokens: 1 } } };
const block = (index: number, content: object) => ({
  type: "content_block_start",
  index,
  content_block: content,
});
const delta = (index: number, value: object) => ({
  type: "content_block_delta",
  index,
  delta: value,
});
const end = (reason: string) => [
  { type: "message_delta", delta: { stop_reason: reason }, usage: { output_tokens: 9 } },
  { type: "message_stop" },
];
const tool = { type: "tool_use", id: "t", name: "bash", input: {} };

function assemble(...events: object[]): ModelAnswer & { shown: string } {
  let shown = "";
  const assembly = new MessageAssembly((text) => {
    shown += text;
  });
  for (const event of events) assembly.add(event);
  return { ...assembly.finish(), shown };
}

describe("a stream", () => {
  it("becomes the message, with its text shown as it came", () => {
    const answer = assemble(
      start,
      block(0, { type: "thinking", thinking: "", signature: "" }),
      delta(0, { type: "thinking_delta", thinking: "hm" }),
      delta(0, { type: "signature_delta", signature: "sig" }),
      block(1, { type: "text", text: "" }),
      { type: "ping" },
      { type: "something_new", of: "the API" },
      delta(1, { type: "text_delta", text: "a" }),
      delta(1, { type: "text_delta", text: "b" }),
      block(2, tool),
      delta(2, { type: "input_json_delta", partial_json: '{"x":' }),
      delta(2, { type: "input_json_delta", partial_json: "1}" }),
      ...end("tool_use"),
    );

    expect(answer).toMatchObject({
      content: [
        { type: "thinking", thinking: "hm", signature: "sig" },
        { type: "text", text: "ab" },
        { ...tool, input: { x: 1 } },
      ],
      stopReason: "tool_use",
      usage: { input_tokens: 7, output_tokens: 9 },
      shown: "ab",
    });
  });

  it.each(["max_tokens", "model_context_window_exceeded"])(
    "that ends by %s inside a call says so of that call alone",
    (reason) => {
      const answer = assemble(
        start,
        block(0, { type: "text", text: "" }),
        delta(0, { type: "text_delta", text: "a" }),
        block(1, tool),
        block(2, tool),
        delta(2, { type: "input_json_delta", partial_json: '{"x":' }),
        ...end(reason),
      );

      expect(answer.content).toEqual([{ type: "text", text: "a" }, tool, tool]);
      expect([...answer.faults]).toEqual([[2, "cut"]]);
    },
  );

  it("cut before the first character of a call's input: nobody meant it to be empty", () => {
    const answer = assemble(start, block(0, tool), ...end("max_tokens"));

    expect([...answer.faults]).toEqual([[0, "cut"]]);
  });

  it("whose last call is whole has no fault, although the limit came right after it", () => {
    const input = delta(0, { type: "input_json_delta", partial_json: '{"x":1}' });
    const answer = assemble(start, block(0, tool), input, ...end("max_tokens"));

    expect(answer).toMatchObject({ content: [{ ...tool, input: { x: 1 } }], faults: new Map() });
  });

  it.each(["{", "[1]", "10.0", "null", `{"x":${"[".repeat(100)}${"]".repeat(100)}}`])(
    "with a call whose input is %s keeps the call and says that it cannot be made",
    (json) => {
      const input = delta(0, { type: "input_json_delta", partial_json: json });
      const answer = assemble(start, block(0, tool), input, ...end("tool_use"));

      expect(answer.content).toEqual([tool]);
      expect([...answer.faults]).toEqual([[0, "unreadable"]]);
    },
  );

  it("keeps the digits of a call's numbers", () => {
    const json = '{"id":1234567890123456789,"price":10.0,"far":[1e400]}';
    const input = delta(0, { type: "input_json_delta", partial_json: json });
    const answer = assemble(start, block(0, tool), input, ...end("tool_use"));

    expect(JSON.stringify(answer.content[0]?.["input"])).toBe(json);
  });

  it("ends with message_stop, whatever follows", () => {
    const text = block(0, { type: "text", text: "a" });
    const answer = assemble(start, text, ...end("end_turn"), block(0, tool), { type: 7 });

    expect(answer).toMatchObject({
      content: [{ type: "text", text: "a" }],
      stopReason: "end_turn",
    });
  });

  it.each([
    { type: "message_start", message: {} },
    { type: "message_start", message: { usage: null } },
    { type: "message_start", message: { usage: { input_tokens: "many", output_tokens: 1.5 } } },
    { type: "message_start" },
  ])("without counts has none: %j", (begin) => {
    const finish = [{ type: "message_delta", delta: {}, usage: null }, { type: "message_stop" }];
    const answer = assemble(begin, block(0, { type: "text", text: "a" }), ...finish);

    expect(answer).toMatchObject({
      stopReason: "end_turn",
      usage: { input_tokens: 0, output_tokens: 0 },
    });
  });

  it("may number its blocks as it likes, and hold blocks and reasons of times to come", () => {
    const answer = assemble(
      start,
      block(3, { type: "text", text: "a" }),
      block(1, { type: "hologram", of: 1 }),
      delta(1, { type: "hologram_delta", more: 1 }),
      ...end("out_of_ideas"),
    );

    expect(answer).toMatchObject({
      content: [{ text: "a" }, { type: "hologram", of: 1 }],
      stopReason: "out_of_ideas",
    });
  });

  it.each([
    { name: "ends early", events: [start, block(0, { type: "text", text: "" })] },
    {
      name: "has a delta without a block",
      events: [start, delta(0, { type: "text_delta", text: "a" })],
    },
    { name: "has a block that begins twice", events: [start, block(1, tool), block(1, tool)] },
    { name: "is not what the API defines", events: [{ type: "content_block_start", index: "a" }] },
  ])("is malformed when it $name", ({ events }) => {
    expect(() => assemble(...events)).toThrow(
      expect.objectContaining({ name: "ModelError", kind: "malformed" }),
    );
  });
});
