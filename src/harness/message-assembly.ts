import { z } from "zod";
import { isNumberText, parseExact } from "../protocol/exact-json.ts";
import { type Block, type CallFault, type ModelAnswer, ModelError } from "./model.ts";
import { isCut } from "./stop-reasons.ts";

/** Puts the events of a stream together to a message. Pure but for its own state. */

/** Endpoints leave counts out, or say null or nonsense: such a count is unknown. */
const count = z.int().min(0).optional().catch(undefined);
const counts = z
  .looseObject({
    input_tokens: count,
    output_tokens: count,
    cache_creation_input_tokens: count,
    cache_read_input_tokens: count,
  })
  .optional()
  .catch(undefined);

const block = z.looseObject({ type: z.string() });

const streamEvent = z.discriminatedUnion("type", [
  z.looseObject({
    type: z.literal("message_start"),
    message: z.looseObject({ usage: counts }).optional().catch(undefined),
  }),
  z.looseObject({ type: z.literal("content_block_start"), index: z.int(), content_block: block }),
  z.looseObject({
    type: z.literal("content_block_delta"),
    index: z.int(),
    delta: z.looseObject({ type: z.string() }),
  }),
  z.looseObject({ type: z.literal("content_block_stop") }),
  z.looseObject({
    type: z.literal("message_delta"),
    delta: z.looseObject({ stop_reason: z.string().nullish() }),
    usage: counts,
  }),
  z.looseObject({ type: z.literal("message_stop") }),
  z.looseObject({ type: z.literal("ping") }),
]);
type StreamEvent = z.output<typeof streamEvent>;

const wholeMessage = z.looseObject({
  type: z.literal("message"),
  content: z.array(block),
  stop_reason: z.string().nullish(),
  usage: counts,
});

/** Levels of objects and lists in the input of a call; the proxy before MCP servers takes no more. */
const MAX_INPUT_DEPTH = 48;
/** Blocks of one answer. */
const MAX_BLOCKS = 1000;

interface OpenBlock {
  block: Block;
  /** The input of a call, as it came. */
  json: string[];
}

export class MessageAssembly {
  /** By the index that the stream gave each; in the order in which they began. */
  readonly #blocks = new Map<number, OpenBlock>();
  readonly #usage = { input: 0, output: 0, write: 0, read: 0 };
  #stopReason: string | undefined;
  #done = false;
  readonly #onText: (text: string) => void;

  constructor(onText: (text: string) => void) {
    this.#onText = onText;
  }

  /** The message has ended: whatever follows in the stream is no part of it. */
  get done(): boolean {
    return this.#done;
  }

  /** Takes one event; throws ModelError `malformed` when it is out of place. */
  add(value: unknown): void {
    if (this.#done) return;
    const parsed = streamEvent.safeParse(value);
    // The API may add event types; those it has must be right.
    if (!parsed.success) {
      if (isUnknownType(value)) return;
      throw malformed("an event of the stream is not what the Messages API defines");
    }
    this.#apply(parsed.data);
  }

  /** Takes a message that came in one piece; throws ModelError `malformed` when it is none. */
  addWhole(value: unknown): void {
    const parsed = wholeMessage.safeParse(value);
    if (!parsed.success) throw malformed("it is neither a stream nor a message");
    const { content, stop_reason, usage } = parsed.data;
    for (const [index, content_block] of content.entries()) {
      this.#apply({ type: "content_block_start", index, content_block });
    }
    this.#apply({ type: "message_delta", delta: { stop_reason }, usage });
    this.#apply({ type: "message_stop" });
  }

  /** The whole message; throws ModelError `malformed` when the stream has ended too early. */
  finish(): ModelAnswer {
    if (!this.#done) throw malformed("the stream ended before the message did");
    const open = [...this.#blocks.values()];
    const called = open.some(({ block: { type } }) => type === "tool_use");
    const stopReason = this.#stopReason ?? (called ? "tool_use" : "end_turn");
    const faults = new Map<number, CallFault>();
    const content = open.map(({ block: item, json }, index): Block => {
      if (item.type !== "tool_use") return item;
      const isLast = index === open.length - 1;
      const text = json.join("");
      const cut = isLast && isCut(stopReason);
      // Cut before the first character of its input: nobody meant it to be empty.
      const input = cut && text === "" ? undefined : readInput(text, item["input"]);
      if (input === undefined) faults.set(index, cut ? "cut" : "unreadable");
      return { ...item, input: input ?? {} };
    });
    const { input, output, write, read } = this.#usage;
    return {
      content,
      stopReason,
      faults,
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
        this.#count(event.message?.usage);
        return;
      case "content_block_start":
        if (this.#blocks.has(event.index)) throw malformed("a block begins twice");
        if (this.#blocks.size >= MAX_BLOCKS) throw malformed(`more than ${MAX_BLOCKS} blocks`);
        this.#blocks.set(event.index, { block: { ...event.content_block }, json: [] });
        return;
      case "content_block_delta":
        this.#delta(event.index, event.delta);
        return;
      case "message_delta":
        this.#stopReason = event.delta.stop_reason ?? this.#stopReason;
        this.#count(event.usage);
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
    const target = this.#blocks.get(index);
    if (target === undefined) throw malformed("a delta belongs to no block");
    const grow = (field: string) => {
      const piece = textOf(delta[field]);
      target.block[field] = textOf(target.block[field]) + piece;
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
        target.json.push(textOf(delta["partial_json"]));
        return;
      default:
        // Citations and whatever else may come change nothing a harness needs.
        return;
    }
  }

  #count(usage: z.output<typeof counts>): void {
    this.#usage.input = usage?.input_tokens ?? this.#usage.input;
    this.#usage.output = usage?.output_tokens ?? this.#usage.output;
    this.#usage.write = usage?.cache_creation_input_tokens ?? this.#usage.write;
    this.#usage.read = usage?.cache_read_input_tokens ?? this.#usage.read;
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
  return isRecord(value) && typeof value["type"] === "string" && !KNOWN.has(value["type"]);
}

/** Undefined when it is not a JSON object, or one that is nested too deeply to be passed on. */
function readInput(json: string, initial: unknown): Record<string, unknown> | undefined {
  try {
    const value: unknown = json.trim() === "" ? (initial ?? {}) : parseExact(json);
    return isRecord(value) && !isDeeperThan(value, MAX_INPUT_DEPTH) ? value : undefined;
  } catch {
    return undefined;
  }
}

function isRecord(value: unknown): value is Record<string, unknown> {
  const isObject = typeof value === "object" && value !== null;
  return isObject && !Array.isArray(value) && !isNumberText(value);
}

function isDeeperThan(value: unknown, levels: number): boolean {
  if (typeof value !== "object" || value === null) return false;
  return levels === 0 || Object.values(value).some((member) => isDeeperThan(member, levels - 1));
}
