import { BEGINS_ESCAPE, CUT_ESCAPE, codeOfEscape, endOfEscape, readEscape } from "./escapes.ts";
import { CODES, ROOT, type ValueTrie } from "./value-trie.ts";

/** Where a known value is in a text, in whatever way its characters are written. */
export interface Span {
  start: number;
  end: number;
  id: string;
}

export interface SearchResult {
  /** In order, apart from each other. */
  spans: readonly Span[];
  /** From here on the text may be the beginning of a value, if more of it comes. */
  openFrom: number;
}

/** Readings of one place that are followed at one time; one or two in practice. */
const MAX_READINGS = 8;
/** An escape inside an escape, as when something encoded is encoded again. */
const MAX_NESTED = 4;
/** Blanks by which a broken line is indented. */
const MAX_INDENT = 64;
/** No escape is longer, those inside it included. */
const MAX_ESCAPE = 48;

const TAB = 0x09;
const LINE_FEED = 0x0a;
const CARRIAGE_RETURN = 0x0d;
const SPACE = 0x20;

/**
 * One pass over a text from left to right. It is read as it stands and, from each escape on, as the
 * character that the escape stands for; so a value is found of whose characters each is written in a
 * way of its own. Line breaks inside a value, with which base64 is wrapped, are read over.
 */
export class ValueSearch {
  readonly #trie: ValueTrie;
  readonly #text: string;
  readonly #spans: Span[] = [];
  /** Nodes that some reading of the text has led to at the place that is looked at. */
  #nodes: number[] = [];
  /** Nodes that wait for the end of the escape that led to them. */
  #ahead: { node: number; at: number }[] = [];
  /** Escapes by the place after them, as far back as a value may reach. */
  readonly #escapes: RecentEscapes;
  /** Since here some reading has led somewhere. */
  #busySince = 0;
  #openFrom: number;

  constructor(trie: ValueTrie, text: string) {
    this.#trie = trie;
    this.#text = text;
    this.#escapes = new RecentEscapes(trie.longest);
    this.#openFrom = text.length;
  }

  run(): SearchResult {
    const text = this.#text;
    let indent = 0;
    for (let at = this.#plain(0); at < text.length; at += 1) {
      const code = text.charCodeAt(at);
      this.#arrive(at);
      if (code < CODES && BEGINS_ESCAPE[code] === 1) this.#readEscapes(at, code);
      if (isLineBreak(code)) indent = MAX_INDENT;
      else if (isBlank(code) && indent > 0) indent -= 1;
      else {
        indent = 0;
        this.#nodes = this.#stepped(code, at + 1);
      }
      if (this.#nodes.length > 0 || this.#ahead.length > 0) continue;
      indent = 0;
      at = this.#plain(at + 1) - 1;
    }
    this.#arrive(text.length);
    for (const node of this.#nodes) this.#keepOpen(this.#trie.unfinished(node), text.length);
    return { spans: this.#spans, openFrom: this.#openFrom };
  }

  /**
   * Reads on from where nothing has begun, as long as there is only one reading and no value. This is
   * nearly all of nearly every text, so it makes no objects. Resolves to where the other way goes on.
   */
  #plain(from: number): number {
    const text = this.#text;
    const trie = this.#trie;
    this.#escapes.forget();
    let node = ROOT;
    let since = from;
    let at = from;
    for (; at < text.length; at += 1) {
      const code = text.charCodeAt(at);
      if (code >= CODES) {
        node = ROOT;
      } else if (node === ROOT) {
        if (BEGINS_ESCAPE[code] === 1 && this.#mayBegin(at, code)) break;
        if (trie.begins[code] !== 1) continue;
        node = trie.step(ROOT, code);
        since = at;
      } else {
        if (BEGINS_ESCAPE[code] === 1 || isLineBreak(code)) break;
        const next = trie.step(node, code);
        if (trie.found(next) !== ROOT) break;
        node = next;
      }
    }
    this.#nodes = node === ROOT ? NOWHERE : [node];
    this.#busySince = node === ROOT ? at : since;
    return at;
  }

  /** Whether a value may begin with the escape at this place. */
  #mayBegin(at: number, first: number): boolean {
    const escape = readEscape(this.#text, first, at + 1);
    if (escape < 0) return escape === CUT_ESCAPE;
    const code = codeOfEscape(escape);
    return this.#trie.begins[code] === 1 || BEGINS_ESCAPE[code] === 1;
  }

  #arrive(at: number): void {
    if (this.#ahead.length === 0) return;
    let rest = 0;
    for (const one of this.#ahead) {
      if (one.at !== at) {
        this.#ahead[rest] = one;
        rest += 1;
      } else if (!this.#nodes.includes(one.node) && this.#nodes.length < MAX_READINGS) {
        this.#nodes = [...this.#nodes, one.node];
      }
    }
    this.#ahead.length = rest;
  }

  #readEscapes(at: number, first: number): void {
    let head = first;
    let place = at + 1;
    for (let nested = 0; nested < MAX_NESTED; nested += 1) {
      const escape = readEscape(this.#text, head, place);
      if (escape === CUT_ESCAPE) this.#keepCut(at);
      if (escape < 0) return;
      head = codeOfEscape(escape);
      place = endOfEscape(escape);
      this.#follow(at, head, place);
      if (BEGINS_ESCAPE[head] !== 1) return;
    }
  }

  /** From `at` an escape for this character leads to `end`. */
  #follow(at: number, code: number, end: number): void {
    if (this.#nodes.length === 0 && this.#trie.begins[code] !== 1) return;
    this.#escapes.add({ at, code, end });
    const nodes = isLineBreak(code) ? this.#nodes : this.#stepped(code, end);
    for (const node of nodes) this.#ahead.push({ node, at: end });
  }

  #keepCut(at: number): void {
    if (at < this.#text.length - MAX_ESCAPE) return;
    this.#openFrom = Math.min(this.#openFrom, at);
    for (const node of this.#nodes) this.#keepOpen(node, at);
  }

  /** Where the nodes of this place lead with one character more, which ends at `end`. */
  #stepped(code: number, end: number): number[] {
    const trie = this.#trie;
    const from = this.#nodes;
    // Most characters lead nowhere from nowhere.
    if (from.length === 0 && (code >= CODES || trie.begins[code] !== 1)) return NOWHERE;
    const to: number[] = [];
    for (let index = 0; index === 0 || index < from.length; index += 1) {
      const node = trie.step(from[index] ?? ROOT, code);
      if (node === ROOT || to.includes(node)) continue;
      to.push(node);
      const found = trie.found(node);
      if (found === ROOT) continue;
      this.#take({ start: this.#startOf(found, end), end, id: trie.id(found) });
    }
    return to;
  }

  #keepOpen(node: number, end: number): void {
    if (node !== ROOT) this.#openFrom = Math.min(this.#openFrom, this.#startOf(node, end));
  }

  #take(span: Span): void {
    let { start, end, id } = span;
    for (let last = this.#spans.at(-1); last !== undefined; last = this.#spans.at(-1)) {
      // Nested and overlapping ones become one, under the id of the longest.
      if (last.end <= start) break;
      if (last.end - last.start > end - start) ({ id } = last);
      start = Math.min(start, last.start);
      end = Math.max(end, last.end);
      this.#spans.pop();
    }
    this.#spans.push({ start, end, id });
  }

  /** Where the text of a node begins that has been read up to `end`: its characters, backwards. */
  #startOf(node: number, end: number): number {
    let places = [end];
    for (let at = node; at !== ROOT; at = this.#trie.parent(at)) {
      const code = this.#trie.code(at);
      const before: number[] = [];
      this.#addBreaks(places);
      for (const place of places) {
        if (place > 0 && this.#text.charCodeAt(place - 1) === code) addOnce(before, place - 1);
        for (const escape of this.#escapes.endingAt(place)) {
          if (escape.code === code) addOnce(before, escape.at);
        }
      }
      places = before.slice(0, MAX_READINGS);
    }
    // Without: a way that was longer than what is remembered, so all that may belong to it.
    return places.length === 0 ? this.#busySince : Math.min(...places);
  }

  /** The places from which line breaks lead to these. */
  #addBreaks(places: number[]): void {
    for (const place of places) {
      if (places.length > MAX_INDENT) return;
      const before = place - 1;
      const code = this.#text.charCodeAt(before);
      if (isLineBreak(code)) addOnce(places, before);
      for (const escape of this.#escapes.endingAt(place)) {
        if (isLineBreak(escape.code)) addOnce(places, escape.at);
      }
      if (!isBlank(code)) continue;
      let indented = before;
      while (place - indented <= MAX_INDENT && isBlank(this.#text.charCodeAt(indented))) {
        indented -= 1;
      }
      if (isLineBreak(this.#text.charCodeAt(indented))) addOnce(places, indented);
    }
  }
}

interface Escape {
  at: number;
  code: number;
  end: number;
}

/** Escapes by the place after them: those that a value which ends here may be written with, no more. */
class RecentEscapes {
  readonly #limit: number;
  #recent = new Map<number, Escape[]>();
  #before = new Map<number, Escape[]>();

  constructor(longest: number) {
    this.#limit = 4 * longest + 64;
  }

  add(escape: Escape): void {
    const here = this.#recent.get(escape.end);
    if (here !== undefined) {
      here.push(escape);
      return;
    }
    if (this.#recent.size >= this.#limit) {
      this.#before = this.#recent;
      this.#recent = new Map();
    }
    this.#recent.set(escape.end, [escape]);
  }

  endingAt(place: number): readonly Escape[] {
    const recent = this.#recent.get(place);
    const before = this.#before.get(place);
    if (recent !== undefined && before !== undefined) return [...recent, ...before];
    return recent ?? before ?? NO_ESCAPES;
  }

  forget(): void {
    if (this.#recent.size > 0) this.#recent.clear();
    if (this.#before.size > 0) this.#before.clear();
  }
}

const NO_ESCAPES: readonly Escape[] = [];

const NOWHERE: number[] = [];

function addOnce(places: number[], place: number): void {
  if (!places.includes(place)) places.push(place);
}

function isLineBreak(code: number): boolean {
  return code === LINE_FEED || code === CARRIAGE_RETURN;
}

function isBlank(code: number): boolean {
  return code === SPACE || code === TAB;
}
