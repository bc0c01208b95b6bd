import { z } from "zod";
import { type Block, type ModelAnswer, ModelError } from "./model.ts";

/** Puts the events of a stream together to a message. Pure but for its own state. */

const counts = z.looseObject({
  input_tokens: z.int().nullish(),
  output_tokens: z.int().nullish(),
  cache_creation_input_tokens: z.int().nullish(),
  cache_read_input_tokens: z.int().nullish(),
});

const block = z.looseObject({ type: z.string() });

const streamEvent = z.discriminatedUnion("type", [
  z.looseObject({ type: z.literal("message_start"), message: z.looseObject({ usage: counts }) }),
  z.looseObject({ type: z.literal("content_block_start"), index: z.int(), content_block: block }),
  z.looseObject({
    type: z.literal("content_block_delta"),
    index: z.int(),
    delta: z.looseObject({ type: z.string() }),
  }),
  z.looseObject({ type: z.literal("content_block_stop"), index: z.int() }),
  z.looseObject({
    type: z.literal("message_delta"),
    delta: z.looseObject({ stop_reason: z.string().nullish() }),
    usage: counts.nullish(),
  }),
  z.looseObject({ type: z.literal("message_stop") }),
  z.looseObject({ type: z.literal("ping") }),
]);
type StreamEvent = z.output<typeof streamEvent>;

export class MessageAssembly {
  readonly #blocks: Block[] = [];
  readonly #json = new Map<number, string>();
  readonly #usage = { input: 0, output: 0, write: 0, read: 0 };
  #stopReason: string | undefined;
  #done = false;
  readonly #onText: (text: string) => void;

  constructor(onText: (text: string) => void) {
    this.#onText = onText;
  }

  /** Takes one event; throws ModelError `malformed` when it is out of place. */
  add(value: unknown): void {
    const parsed = streamEvent.safeParse(value);
    // The API may add event types; those it has must be right.
    if (!parsed.success) {
      if (isUnknownType(value)) return;
      throw malformed("an event of the stream is not what the Messages API defines");
    }
    this.#apply(parsed.data);
  }

  /** The whole message; throws ModelError `malformed` when the stream has ended too early. */
  finish(): ModelAnswer {
    if (!this.#done || this.#stopReason === undefined) {
      throw malformed("the stream ended before the message did");
    }
    const cutOff = this.#stopReason === "max_tokens";
    let cutCall: string | undefined;
    const content = this.#blocks.flatMap((item, index) => {
      if (item.type !== "tool_use") return [item];
      const json = this.#json.get(index) ?? "";
      const input = parseInput(json, item["input"]);
      const unbegun = cutOff && json === "" && index === this.#blocks.length - 1;
      if (input !== undefined && !unbegun) return [{ ...item, input }];
      // The output limit fell inside this call: it cannot be run, and half of it is no valid history.
      if (cutOff) {
        cutCall = textOf(item["name"]);
        return [];
      }
      throw malformed("the input of a tool call is not a JSON object");
    });
    const { input, output, write, read } = this.#usage;
    return {
      content,
      stopReason: this.#stopReason,
      ...(cutCall === undefined ? {} : { cutCall }),
      usage: {
        input_tokens: input,
        output_tokens: output,
        cache_creation_input_tokens: write,
        cache_read_input_tokens: read,
      },
    };
  }

  #apply(event: StreamEvent): void {
    switch (event.type) {
      case "message_start":
        this.#count(event.message.usage);
        return;
      case "content_block_start":
        if (event.index !== this.#blocks.length) throw malformed("a block is out of order");
        this.#blocks.push({ ...event.content_block });
        return;
      case "content_block_delta":
        this.#delta(event.index, event.delta);
        return;
      case "message_delta":
        this.#stopReason = event.delta.stop_reason ?? this.#stopReason;
        if (event.usage) this.#count(event.usage);
        return;
      case "message_stop":
        this.#done = true;
        return;
      case "content_block_stop":
      case "ping":
        return;
    }
  }

  #delta(index: number, delta: Record<string, unknown>): void {
    const target = this.#blocks[index];
    if (target === undefined) throw malformed("a delta belongs to no block");
    const grow = (field: string) => {
      const piece = textOf(delta[field]);
      target[field] = textOf(target[field]) + piece;
      return piece;
    };
    switch (delta["type"]) {
      case "text_delta":
        this.#onText(grow("text"));
        return;
      case "thinking_delta":
        grow("thinking");
        return;
      case "signature_delta":
        grow("signature");
        return;
      case "input_json_delta":
        this.#json.set(index, (this.#json.get(index) ?? "") + textOf(delta["partial_json"]));
        return;
      default:
        // Citations and whatever else may come change nothing a harness needs.
        return;
    }
  }

  #count(usage: z.output<typeof counts>): void {
    this.#usage.input = usage.input_tokens ?? this.#usage.input;
    this.#usage.output = usage.output_tokens ?? this.#usage.output;
    this.#usage.write = usage.cache_creation_input_tokens ?? this.#usage.write;
    this.#usage.read = usage.cache_read_input_tokens ?? this.#usage.read;
  }
}

function textOf(value: unknown): string {
  return typeof value === "string" ? value : "";
}

function malformed(message: string): ModelError {
  return new ModelError("malformed", `the model's answer cannot be read: ${message}`);
}

const KNOWN = new Set<unknown>(streamEvent.options.map((option) => option.shape.type.value));

function isUnknownType(value: unknown): boolean {
  return (
    typeof value === "object" &&
    value !== null &&
    "type" in value &&
    typeof value.type === "string" &&
    !KNOWN.has(value.type)
  );
}

function parseInput(json: string, initial: unknown): Record<string, unknown> | undefined {
  try {
    const value: unknown = json === "" ? initial : JSON.parse(json);
    const parsed = z.record(z.string(), z.unknown()).safeParse(value);
    return parsed.data;
  } catch {
    return undefined;
  }
}
