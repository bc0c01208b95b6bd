import { keepNumberText } from "../protocol/exact-json.ts";
import { AppError } from "../runtime/errors.ts";
import { MAX_JSON_VALUES } from "./limits.ts";

const QUOTE = 0x22;
const COMMA = 0x2c;
const MINUS = 0x2d;
const DIGIT_0 = 0x30;
const DIGIT_9 = 0x39;
const OPEN_BRACKET = 0x5b;
const BACKSLASH = 0x5c;
const CLOSE_BRACKET = 0x5d;
const SMALL_F = 0x66;
const SMALL_N = 0x6e;
const SMALL_T = 0x74;
const OPEN_BRACE = 0x7b;
const CLOSE_BRACE = 0x7d;

/**
 * JSON from the network, read so that what we decided on is what we pass on: a repeated key or deep
 * nesting is refused, and numbers keep their exact text (`12345678901234567890`, `1.0`, `1e400`).
 */

/**
 * Throws INPUT_INVALID; the text is never quoted. `details.limit` is there when the text costs more than
 * is spent on one: deeper nesting, or more values and keys, which are counted before anything is built.
 */
export function parseJsonText(
  text: string,
  maxDepth: number,
  maxValues: number = MAX_JSON_VALUES,
): unknown {
  const { exact } = scan(text, maxDepth, maxValues);
  try {
    return exact ? JSON.parse(text) : JSON.parse(text, keepNumberText);
  } catch {
    throw invalid("it is not JSON");
  }
}

/**
 * Walks the tokens once by hand (a regular expression would keep a stack entry per character);
 * `exact` is false when some number would change its text. Whether it is JSON is JSON.parse's word.
 */
function scan(text: string, maxDepth: number, maxValues: number): { exact: boolean } {
  /** Per open object its keys, once it has any; per open array undefined. */
  const open: (Set<string> | "no keys" | undefined)[] = [];
  let exact = true;
  let expectsKey = false;
  let values = 0;
  const count = () => {
    values += 1;
    if (values > maxValues)
      throw tooCostly(`it has more than ${maxValues} values and keys`, maxValues);
  };
  for (let at = 0; at < text.length; at += 1) {
    const code = text.charCodeAt(at);
    if (code === OPEN_BRACE || code === OPEN_BRACKET) {
      count();
      open.push(code === OPEN_BRACE ? "no keys" : undefined);
      if (open.length > maxDepth) {
        throw tooCostly(`it is nested deeper than ${maxDepth} levels`, maxDepth);
      }
      expectsKey = code === OPEN_BRACE;
    } else if (code === CLOSE_BRACE || code === CLOSE_BRACKET) {
      open.pop();
      expectsKey = false;
    } else if (code === COMMA) {
      expectsKey = open.at(-1) !== undefined;
    } else if (code === QUOTE) {
      count();
      const end = stringEnd(text, at);
      if (expectsKey) addKey(open, text.slice(at, end));
      expectsKey = false;
      at = end - 1;
    } else if (isNumberStart(code)) {
      count();
      const end = numberEnd(text, at);
      const token = text.slice(at, end);
      exact &&= String(Number(token)) === token;
      at = end - 1;
    } else if (code === SMALL_N || code === SMALL_T || code === SMALL_F) {
      count();
    }
  }
  return { exact };
}

/** Index after the closing quote of the string that begins at `start`. */
function stringEnd(text: string, start: number): number {
  for (let at = start + 1; at < text.length; at += 1) {
    const code = text.charCodeAt(at);
    if (code === BACKSLASH) at += 1;
    else if (code === QUOTE) return at + 1;
  }
  return text.length;
}

function isNumberStart(code: number): boolean {
  return code === MINUS || (code >= DIGIT_0 && code <= DIGIT_9);
}

function numberEnd(text: string, start: number): number {
  let at = start + 1;
  while (at < text.length && /[\d.eE+-]/.test(text[at] ?? "")) at += 1;
  return at;
}

function addKey(open: (Set<string> | "no keys" | undefined)[], token: string): void {
  const last = open.at(-1);
  if (last === undefined) return;
  const keys = last === "no keys" ? new Set<string>() : last;
  open[open.length - 1] = keys;
  // Two spellings of one key (`"a"`, `"\u0061"`) are one key.
  const key = token.includes("\\") ? unescaped(token) : token.slice(1, -1);
  if (keys.has(key)) throw invalid("an object has the same key twice");
  keys.add(key);
}

function unescaped(token: string): string {
  try {
    const key: unknown = JSON.parse(token);
    return typeof key === "string" ? key : token;
  } catch {
    throw invalid("it is not JSON");
  }
}

function tooCostly(why: string, limit: number): AppError {
  return new AppError("INPUT_INVALID", `the message is refused: ${why}`, { details: { limit } });
}

function invalid(why: string): AppError {
  return new AppError("INPUT_INVALID", `the message is refused: ${why}`);
}
