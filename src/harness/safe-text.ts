import { isNumberText } from "../protocol/exact-json.ts";
import { LIMITS } from "../protocol/session-event.ts";

/** What the model reads where a tool printed nothing: blank blocks are refused by the model's API. */
export const NO_OUTPUT = "(no output)";

/** Well-formed, not blank, and within the limits of a tool result; what is cut out is said in place. */
export function toolText(text: string): string {
  const whole = text.toWellFormed();
  if (whole.trim() === "") return NO_OUTPUT;
  let keep: number = LIMITS.toolResultChars;
  let capped = headAndTail(whole, keep);
  while (Buffer.byteLength(JSON.stringify(capped)) > LIMITS.toolResultBytes) {
    keep = Math.floor(keep / 2);
    capped = headAndTail(whole, keep);
  }
  return capped;
}

/** As it is when an event can hold it, else its head and tail. */
export function eventText(text: string): string {
  const fits =
    text.length <= LIMITS.toolResultChars &&
    Buffer.byteLength(JSON.stringify(text)) <= LIMITS.toolResultBytes;
  return fits ? text : toolText(text);
}

/** At most `maxChars` UTF-16 units, cut between characters. */
export function headAndTail(text: string, maxChars: number): string {
  if (text.length <= maxChars) return text;
  const note = (cut: number) => `\n[… ${cut} characters left out …]\n`;
  const room = Math.max(0, maxChars - note(text.length).length);
  const head = wholeCharacters(text.slice(0, Math.ceil(room / 2)));
  const tail = room < 2 ? "" : wholeCharacters(text.slice(-Math.floor(room / 2)));
  return `${head}${note(text.length - head.length - tail.length)}${tail}`;
}

/** Drops half a surrogate pair at either end of a slice. */
function wholeCharacters(slice: string): string {
  const first = slice.charCodeAt(0);
  const last = slice.charCodeAt(slice.length - 1);
  const start = first >= 0xdc00 && first <= 0xdfff ? 1 : 0;
  const end = last >= 0xd800 && last <= 0xdbff ? slice.length - 1 : slice.length;
  return slice.slice(start, end);
}

/** Every string inside made well-formed: half a surrogate pair makes a request invalid for ever. */
export function wellFormed<T>(value: T): T;
export function wellFormed(value: unknown): unknown {
  if (typeof value === "string") return value.toWellFormed();
  if (Array.isArray(value)) return value.map((member: unknown) => wellFormed(member));
  if (typeof value !== "object" || value === null || isNumberText(value)) return value;
  return Object.fromEntries(
    Object.entries(value).map(([key, member]) => [key.toWellFormed(), wellFormed(member)]),
  );
}
