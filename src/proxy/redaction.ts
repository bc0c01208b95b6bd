import { type Span, ValueSearch } from "./value-search.ts";
import { ValueTrie } from "./value-trie.ts";

/**
 * Takes known credential values out of what flows back to the harness. Known values, not patterns: each
 * value is looked for as it is, in hex, and in base64 and base64url at each of the three alignments it
 * can have inside a longer encoded text; and in each of these every character may be written in any of
 * its usual ways (escapes.ts), each in a way of its own, and lines may be broken.
 * Not found: values that a server reverses, splits, encrypts or encodes in any other way.
 *
 * Values are visible ASCII (credentials/credential-value.ts), so bytes and characters agree.
 */

export interface KnownSecret {
  /** What stands in its place: `[redacted:<id>]`. */
  id: string;
  value: string;
}

/** By the list itself: who holds a credential gives the same list until it changes. */
const tries = new WeakMap<readonly KnownSecret[], ValueTrie>();
const NONE: readonly KnownSecret[] = [];

function ready(secrets: readonly KnownSecret[]): ValueTrie {
  const known = tries.get(secrets) ?? trieOf(secrets);
  tries.set(secrets, known);
  return known;
}

function trieOf(secrets: readonly KnownSecret[]): ValueTrie {
  const ids = new Map<string, string>();
  for (const { id, value } of secrets) {
    for (const form of encodedForms(value)) ids.set(form, id);
  }
  return new ValueTrie(ids);
}

export class Redactor {
  readonly #secrets: () => readonly KnownSecret[];
  readonly #onHit: () => void;
  readonly #keepsLength: boolean;

  /**
   * `secrets` is asked for every text and every piece of a stream, since a value can be rotated while
   * an answer is on its way; without it nothing is looked for. `onHit` is called once for every replaced occurrence. `keepsLength` puts as many asterisks in
   * its place instead of a marker, for text whose lengths are stated elsewhere.
   */
  constructor(
    secrets: () => readonly KnownSecret[] = () => NONE,
    onHit: () => void = () => {},
    { keepsLength = false }: { keepsLength?: boolean } = {},
  ) {
    this.#secrets = secrets;
    this.#onHit = onHit;
    this.#keepsLength = keepsLength;
  }

  /** The text without any known value. */
  text(text: string): string {
    return this.#clean(text, ready(this.#secrets()));
  }

  /** Every string and number of a parsed JSON value, keys included. */
  json(value: unknown): unknown {
    const known = ready(this.#secrets());
    return known.longest === 0 ? value : this.#cleanJson(value, known);
  }

  /** For text that comes in pieces. */
  pieces(): RedactionPieces {
    let held = NOTHING_HELD;
    const next = (piece: string, isLast: boolean) => {
      const step = this.#cleanPiece({ ...held, text: held.text + piece }, isLast);
      held = step.held;
      return step.clean;
    };
    return {
      push: (piece) => next(piece, false),
      // What is the beginning of one value may be the whole of another that has come since.
      end: () => next("", true),
    };
  }

  /** For bytes that come in pieces. */
  stream(): RedactionStream {
    const pieces = this.pieces();
    return {
      push: (chunk) => Buffer.from(pieces.push(Buffer.from(chunk).toString("latin1")), "latin1"),
      end: () => Buffer.from(pieces.end(), "latin1"),
    };
  }

  #clean(text: string, known: ValueTrie): string {
    if (text.length < known.shortest) return text;
    const { spans } = new ValueSearch(known, text).run();
    return spans.length === 0 ? text : this.#without(text, spans, { from: 0, to: text.length });
  }

  #cleanPiece({ text, covered }: Held, isLast: boolean): { clean: string; held: Held } {
    const { spans, openFrom } = new ValueSearch(ready(this.#secrets()), text).run();
    if (isLast) {
      const clean = this.#without(text, spans, { from: covered, to: text.length });
      return { clean, held: NOTHING_HELD };
    }
    const upTo = Math.max(covered, openFrom);
    // A value may end in what may be the beginning of another one.
    const to = Math.max(upTo, spans.findLast(({ start }) => start < upTo)?.end ?? 0);
    return {
      clean: this.#without(text, spans, { from: covered, to }),
      held: { text: text.slice(openFrom), covered: to - openFrom },
    };
  }

  /** The text between two places, with what stands for each value that begins there. */
  #without(
    text: string,
    spans: readonly Span[],
    { from, to }: { from: number; to: number },
  ): string {
    let clean = "";
    let at = from;
    for (const { start, end, id } of spans) {
      if (end <= from) continue;
      if (start >= to) break;
      clean += text.slice(at, Math.max(at, start));
      if (start >= from) this.#onHit();
      if (this.#keepsLength) clean += "*".repeat(end - Math.max(start, from));
      // What overlaps with a value that is already told is part of it.
      else if (start >= from) clean += `[redacted:${id}]`;
      at = end;
    }
    return clean + text.slice(at, Math.max(at, to));
  }

  #cleanJson(value: unknown, known: ValueTrie): unknown {
    if (typeof value === "string") return this.#clean(value, known);
    if (typeof value === "number" || JSON.isRawJSON(value)) return this.#cleanNumber(value, known);
    if (Array.isArray(value)) return value.map((item) => this.#cleanJson(item, known));
    if (typeof value !== "object" || value === null) return value;
    const copy: Record<string, unknown> = {};
    for (const [key, member] of Object.entries(value)) {
      setMember(copy, this.#clean(key, known), this.#cleanJson(member, known));
    }
    return copy;
  }

  /** As it was written and as its reader will write it (`12345678e0`): with a value in it, a text. */
  #cleanNumber(number: unknown, known: ValueTrie): unknown {
    const source = JSON.stringify(number);
    for (const text of new Set([source, String(Number(source))])) {
      const clean = this.#clean(text, known);
      if (clean !== text) return clean;
    }
    return number;
  }
}

/** Text in, text out; holds back only what may turn out to be the start of a known value. */
export interface RedactionPieces {
  push(piece: string): string;
  /** What was held back. */
  end(): string;
}

/** What waits for the next piece; `covered` of it belongs to a value that is already told. */
interface Held {
  text: string;
  covered: number;
}

const NOTHING_HELD: Held = { text: "", covered: 0 };

/** Bytes in, bytes out; holds back only what may turn out to be the start of a known value. */
export interface RedactionStream {
  push(chunk: Uint8Array): Buffer;
  /** What was held back. */
  end(): Buffer;
}

/** `__proto__` must stay a plain member; everything else is set the quick way. */
function setMember(object: Record<string, unknown>, key: string, value: unknown): void {
  if (key !== "__proto__") {
    object[key] = value;
    return;
  }
  Object.defineProperty(object, key, {
    value,
    enumerable: true,
    configurable: true,
    writable: true,
  });
}

/** Every text by which the value is recognised, without repetition. */
export function encodedForms(value: string): string[] {
  // Also what is packed into base64 or hex as it stands in a form or in JSON.
  const written = new Set([value, encodeURIComponent(value), JSON.stringify(value).slice(1, -1)]);
  const packed = [...written].flatMap((text) => {
    const bytes = Buffer.from(text, "utf8");
    return [
      bytes.toString("hex"),
      bytes.toString("hex").toUpperCase(),
      ...[0, 1, 2].flatMap((before) => base64At(bytes, before)),
    ];
  });
  return [...new Set([value, ...packed])];
}

/**
 * The characters of base64 and base64url that depend on the value alone when `before` bytes
 * (modulo 3) precede it: the first characters mix with what is before, the last with what follows.
 */
function base64At(bytes: Buffer, before: number): string[] {
  const padded = Buffer.concat([Buffer.alloc(before), bytes]);
  const from = Math.ceil((before * 8) / 6);
  const to = Math.floor((padded.length * 8) / 6);
  return [padded.toString("base64").slice(from, to), padded.toString("base64url").slice(from, to)];
}
