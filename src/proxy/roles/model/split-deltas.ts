import type { RedactionPieces, Redactor } from "../../redaction.ts";

/** Where each kind of delta has its piece of text. */
const TEXT_OF: Readonly<Record<string, string>> = {
  text_delta: "text",
  input_json_delta: "partial_json",
  thinking_delta: "thinking",
};
/** Blocks that may be open at one time; an answer has one. */
const MAX_OPEN = 64;

type Fields = Readonly<Record<string, unknown>>;

interface OpenBlock {
  index: unknown;
  type: string;
  pieces: RedactionPieces;
}

/**
 * Text comes from a model in pieces, an event each, and its reader puts them together; so a value may
 * begin in one event and end in another. What may be the beginning of one waits for the next piece of
 * its block, or for the block's end.
 */
export class SplitDeltas {
  readonly #redactor: Redactor;
  readonly #open = new Map<string, OpenBlock>();

  constructor(redactor: Redactor) {
    this.#redactor = redactor;
  }

  /** The data of an event without any known value, after what waited for it. */
  cleaned(value: unknown): unknown[] {
    if (!isFields(value)) return [this.#redactor.json(value)];
    const { type, index, delta } = value;
    switch (type) {
      case "content_block_delta":
        return [isFields(delta) ? this.#delta(value, delta) : this.#redactor.json(value)];
      case "content_block_stop":
        return [...this.#release((block) => block.index === index), this.#redactor.json(value)];
      case "message_delta":
      case "message_stop":
      case "error":
        return [...this.rest(), this.#redactor.json(value)];
      default:
        return [this.#redactor.json(value)];
    }
  }

  /** All that still waits: nothing more will come. */
  rest(): unknown[] {
    return this.#release(() => true);
  }

  #delta(value: Fields, delta: Fields): unknown {
    const type = String(delta["type"]);
    const name = Object.hasOwn(TEXT_OF, type) ? TEXT_OF[type] : undefined;
    const text = name === undefined ? undefined : delta[name];
    if (name === undefined || typeof text !== "string") return this.#redactor.json(value);
    const block = this.#block(value["index"], type);
    if (block === undefined) return this.#redactor.json(value);
    const { [name]: _, ...others } = delta;
    const { delta: _delta, ...around } = value;
    const clean = this.#redactor.json(others);
    const cleanDelta = isFields(clean) ? clean : {};
    const rest = this.#redactor.json(around);
    return {
      ...(isFields(rest) ? rest : {}),
      delta: { ...cleanDelta, [name]: block.pieces.push(text) },
    };
  }

  #block(index: unknown, type: string): OpenBlock | undefined {
    const key = JSON.stringify([index, type]);
    let block = this.#open.get(key);
    if (block === undefined && this.#open.size < MAX_OPEN) {
      block = { index, type, pieces: this.#redactor.pieces() };
      this.#open.set(key, block);
    }
    return block;
  }

  #release(isOver: (block: OpenBlock) => boolean): unknown[] {
    const events: unknown[] = [];
    for (const [key, block] of this.#open) {
      if (!isOver(block)) continue;
      this.#open.delete(key);
      const { index, type, pieces } = block;
      const text = pieces.end();
      const delta = { type, [TEXT_OF[type] ?? "text"]: text };
      if (text !== "") events.push({ type: "content_block_delta", index, delta });
    }
    return events;
  }
}

function isFields(value: unknown): value is Fields {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
