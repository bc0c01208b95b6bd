import type { Answer } from "./answer.ts";
import type { ContentBlock } from "./request.ts";

/** One server-sent event, or (`event` = "wait") a pause of `ms` before the next. */
export type StreamStep =
  | { event: "wait"; ms: number }
  | { event: string; data: Record<string, unknown>; delta?: true };

const CHARS_PER_TOKEN = 4;
/** Unpaced text goes out in pieces of this many characters. */
const PIECE_CHARS = 24;

/** The answer as the real API streams it: pure, the server only writes and waits. */
export function* streamSteps(answer: Answer, model: string): Generator<StreamStep> {
  if (answer.delayMs > 0) yield { event: "wait", ms: answer.delayMs };
  yield named("message_start", {
    message: {
      ...messageHead(answer, model),
      content: [],
      stop_reason: null,
      stop_sequence: null,
      usage: { ...answer.usage, output_tokens: 1 },
    },
  });
  for (const [index, block] of answer.content.entries()) {
    yield named("content_block_start", { index, content_block: emptied(block) });
    if (index === 0) yield named("ping", {});
    for (const delta of deltasOf(block, answer.tokensPerSecond)) {
      if (answer.tokensPerSecond !== undefined) {
        yield { event: "wait", ms: 1000 / answer.tokensPerSecond };
      }
      yield { ...named("content_block_delta", { index, delta }), delta: true };
    }
    yield named("content_block_stop", { index });
  }
  yield named("message_delta", {
    delta: { stop_reason: answer.stopReason, stop_sequence: null },
    usage: { ...answer.usage },
  });
  yield named("message_stop", {});
}

/** The same answer in one piece. */
export function wholeMessage(answer: Answer, model: string): Record<string, unknown> {
  return {
    ...messageHead(answer, model),
    content: answer.content,
    stop_reason: answer.stopReason,
    stop_sequence: null,
    usage: answer.usage,
  };
}

function messageHead(answer: Answer, model: string): Record<string, unknown> {
  return { id: answer.id, type: "message", role: "assistant", model };
}

function named(
  event: string,
  data: Record<string, unknown>,
): { event: string; data: Record<string, unknown> } {
  return { event, data: { type: event, ...data } };
}

function emptied(block: ContentBlock): Record<string, unknown> {
  switch (block.type) {
    case "text":
      return { type: "text", text: "" };
    case "thinking":
      return { type: "thinking", thinking: "", signature: "" };
    case "tool_use":
      return { type: "tool_use", id: block.id, name: block.name, input: {} };
    case "redacted_thinking":
    case "tool_result":
      return { ...block };
  }
}

function* deltasOf(
  block: ContentBlock,
  tokensPerSecond: number | undefined,
): Generator<Record<string, unknown>> {
  const size = tokensPerSecond === undefined ? PIECE_CHARS : CHARS_PER_TOKEN;
  switch (block.type) {
    case "text":
      for (const text of pieces(block.text, size)) yield { type: "text_delta", text };
      return;
    case "thinking":
      for (const thinking of pieces(block.thinking, size)) {
        yield { type: "thinking_delta", thinking };
      }
      yield { type: "signature_delta", signature: block.signature };
      return;
    case "tool_use":
      yield { type: "input_json_delta", partial_json: "" };
      for (const json of pieces(JSON.stringify(block.input), size)) {
        yield { type: "input_json_delta", partial_json: json };
      }
      return;
    case "redacted_thinking":
    case "tool_result":
      return;
  }
}

/** Cuts between code points, never inside one. */
function* pieces(text: string, size: number): Generator<string> {
  let piece = "";
  for (const character of text) {
    piece += character;
    if (piece.length >= size) {
      yield piece;
      piece = "";
    }
  }
  if (piece !== "") yield piece;
}
