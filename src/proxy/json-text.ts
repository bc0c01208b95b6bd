import { keepNumberText } from "../protocol/exact-json.ts";
import { AppError } from "../runtime/errors.ts";

/**
 * JSON from the network, read so that what we decided on is what we pass on: a repeated key or deep
 * nesting is refused, and numbers keep their exact text (`12345678901234567890`, `1.0`, `1e400`).
 */

/** Throws INPUT_INVALID; the text is never quoted. */
export function parseJsonText(text: string, maxDepth: number): unknown {
  const { exact } = scan(text, maxDepth);
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
function scan(text: string, maxDepth: number): { exact: boolean } {
  /** One set of keys per open object, undefined per open array. */
  const open: (Set<string> | undefined)[] = [];
  let exact = true;
  let expectsKey = false;
  for (let at = 0; at < text.length; at += 1) {
    const char = text[at] ?? "";
    if (char === "{" || char === "[") {
      open.push(char === "{" ? new Set() : undefined);
      if (open.length > maxDepth) throw invalid(`it is nested deeper than ${maxDepth} levels`);
      expectsKey = char === "{";
    } else if (char === "}" || char === "]") {
      open.pop();
      expectsKey = false;
    } else if (char === ",") {
      expectsKey = open.at(-1) !== undefined;
    } else if (char === '"') {
      const end = stringEnd(text, at);
      if (expectsKey) addKey(open.at(-1), text.slice(at, end));
      expectsKey = false;
      at = end - 1;
    } else if (isNumberStart(char)) {
      const end = numberEnd(text, at);
      const token = text.slice(at, end);
      exact &&= String(Number(token)) === token;
      at = end - 1;
    }
  }
  return { exact };
}

/** Index after the closing quote of the string that begins at `start`. */
function stringEnd(text: string, start: number): number {
  for (let at = start + 1; at < text.length; at += 1) {
    const char = text[at];
    if (char === "\\") at += 1;
    else if (char === '"') return at + 1;
  }
  return text.length;
}

function isNumberStart(char: string): boolean {
  return char === "-" || (char >= "0" && char <= "9");
}

function numberEnd(text: string, start: number): number {
  let at = start + 1;
  while (at < text.length && /[\d.eE+-]/.test(text[at] ?? "")) at += 1;
  return at;
}

function addKey(keys: Set<string> | undefined, token: string): void {
  if (keys === undefined) return;
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

function invalid(why: string): AppError {
  return new AppError("INPUT_INVALID", `the message is refused: ${why}`);
}
