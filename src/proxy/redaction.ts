/**
 * Takes known credential values out of what flows back to the harness (security §12). Known values,
 * not patterns: each value is looked for raw, JSON-escaped, URL-encoded, in hex, and in base64 and
 * base64url at each of the three alignments it can have inside a longer encoded text.
 * Not found: values that a server reverses, splits, encrypts or encodes in any other way.
 *
 * Values are visible ASCII (credentials/credential-value.ts), so bytes and characters agree.
 */

export interface KnownSecret {
  /** What stands in its place: `[redacted:<id>]`. */
  id: string;
  value: string;
}

/** The forms of some secrets, ready to be looked for. */
interface Compiled {
  patterns: readonly string[];
  ids: ReadonlyMap<string, string>;
  regex: RegExp | undefined;
  /** Characters with which a pattern begins. */
  firsts: ReadonlySet<string>;
  longest: number;
}

/** By the list itself: who holds a credential gives the same list until it changes. */
const compiled = new WeakMap<readonly KnownSecret[], Compiled>();
const NONE: readonly KnownSecret[] = [];

function ready(secrets: readonly KnownSecret[]): Compiled {
  const known = compiled.get(secrets) ?? compile(secrets);
  compiled.set(secrets, known);
  return known;
}

function compile(secrets: readonly KnownSecret[]): Compiled {
  const ids = new Map<string, string>();
  for (const { id, value } of secrets) {
    for (const form of encodedForms(value)) ids.set(form, id);
  }
  // Longest first, so that an alternation prefers the form that covers most.
  const patterns = [...ids.keys()].toSorted((a, b) => b.length - a.length);
  return {
    patterns,
    ids,
    regex:
      patterns.length === 0
        ? undefined
        : new RegExp(patterns.map((pattern) => literal(pattern)).join("|"), "g"),
    firsts: new Set(patterns.map((pattern) => pattern[0] ?? "")),
    longest: patterns[0]?.length ?? 0,
  };
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
    return known.regex === undefined ? value : this.#cleanJson(value, known);
  }

  stream(): RedactionStream {
    let held = "";
    return {
      push: (chunk) => {
        const known = ready(this.#secrets());
        const clean = this.#clean(held + Buffer.from(chunk).toString("latin1"), known);
        const keep = startedLength(clean, known);
        held = clean.slice(clean.length - keep);
        return Buffer.from(clean.slice(0, clean.length - keep), "latin1");
      },
      // What is the beginning of one value may be the whole of another that has come since.
      end: () => Buffer.from(this.text(held), "latin1"),
    };
  }

  #clean(text: string, { regex, ids }: Compiled): string {
    if (regex === undefined) return text;
    return text.replace(regex, (found) => {
      this.#onHit();
      if (this.#keepsLength) return "*".repeat(found.length);
      return `[redacted:${ids.get(found) ?? "credential"}]`;
    });
  }

  #cleanJson(value: unknown, known: Compiled): unknown {
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
  #cleanNumber(number: unknown, known: Compiled): unknown {
    const source = JSON.stringify(number);
    for (const text of new Set([source, String(Number(source))])) {
      const clean = this.#clean(text, known);
      if (clean !== text) return clean;
    }
    return number;
  }
}

/** Length of the longest end of `text` with which a known value may begin; nearly always 0. */
function startedLength(text: string, { patterns, firsts, longest }: Compiled): number {
  const from = Math.max(0, text.length - longest + 1);
  for (let start = from; start < text.length; start += 1) {
    if (!firsts.has(text[start] ?? "")) continue;
    const tail = text.slice(start);
    if (patterns.some((pattern) => pattern.startsWith(tail))) return tail.length;
  }
  return 0;
}

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

/** RegExp.escape is not in Node 22. */
function literal(text: string): string {
  return text.replaceAll(/[\\^$.*+?()[\]{}|/-]/g, String.raw`\$&`);
}

/** Every form in which the value is recognised, without repetition. */
export function encodedForms(value: string): string[] {
  const bytes = Buffer.from(value, "utf8");
  const percent = encodeURIComponent(value);
  const json = JSON.stringify(value).slice(1, -1);
  return [
    ...new Set([
      value,
      json,
      json.replaceAll("/", "\\/"),
      percent,
      percent.replaceAll(/%[0-9A-F]{2}/g, (code) => code.toLowerCase()),
      percent.replaceAll("%20", "+"),
      bytes.toString("hex"),
      bytes.toString("hex").toUpperCase(),
      ...[0, 1, 2].flatMap((before) => base64At(bytes, before)),
    ]),
  ];
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
