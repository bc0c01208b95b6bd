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

  it("loses a call that the output limit cut in two, and nothing else", () => {
    const answer = assemble(
      start,
      block(0, { type: "text", text: "" }),
      delta(0, { type: "text_delta", text: "a" }),
      block(1, tool),
      delta(1, { type: "input_json_delta", partial_json: '{"x":' }),
      ...end("max_tokens"),
    );

    expect(answer.content).toEqual([{ type: "text", text: "a" }]);
    expect(answer.cutCall).toBe(tool.name);
  });

  it("cut before the first character of a call's input leaves the call out: nobody meant it to be empty", () => {
    const answer = assemble(start, block(0, tool), ...end("max_tokens"));

    expect(answer).toMatchObject({ content: [], cutCall: tool.name });
  });

  it.each([
    { name: "ends early", events: [start, block(0, { type: "text", text: "" })] },
    {
      name: "holds broken input",
      events: [
        start,
        block(0, tool),
        delta(0, { type: "input_json_delta", partial_json: "{" }),
        ...end("tool_use"),
      ],
    },
    {
      name: "holds input that is no object",
      events: [
        start,
        block(0, tool),
        delta(0, { type: "input_json_delta", partial_json: "[1]" }),
        ...end("tool_use"),
      ],
    },
    {
      name: "has a delta without a block",
      events: [start, delta(0, { type: "text_delta", text: "a" })],
    },
    { name: "has a block out of order", events: [start, block(1, tool)] },
    { name: "is not what the API defines", events: [{ type: "message_start" }] },
  ])("is malformed when it $name", ({ events }) => {
    expect(() => assemble(...events)).toThrow(
      expect.objectContaining({ name: "ModelError", kind: "malformed" }),
    );
  });
});
