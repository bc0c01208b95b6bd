/**
 * How output becomes the text of a tool result. Pure. Sizes are of the raw bytes; cuts fall between
 * characters, so that a result is valid JSON in UTF-8 whatever a program printed.
 */

/** A result above this many UTF-16 units is shown as head and tail (managed-agents-api D.2). */
const MAX_RESULT_CHARS = 100_000;
/** Likewise above this size as JSON, so that a result with its event stays under the log's limits. */
export const MAX_RESULT_JSON_BYTES = 192 * 1024;
/** How much of each end a preview shows, in UTF-16 units; six times that in JSON still fits. */
const PREVIEW_CHARS = 10_000;
/** Raw bytes decoded for each end: PREVIEW_CHARS characters of four bytes. */
export const PREVIEW_BYTES = 4 * PREVIEW_CHARS;

const ESCAPE = String.fromCharCode(27);
/** Terminal control sequences (colours, cursor moves), as the SDK's bash removes them. */
const ANSI = new RegExp(`${ESCAPE}\\[[0-9;?]*[ -/]*[@-~]`, "g");

/** Raw output: all of it in `head` when `totalBytes` equals its length, else both ends. */
export interface RawOutput {
  head: Buffer;
  tail: Buffer;
  totalBytes: number;
}

export interface StoredOutput {
  /** Relative to the working directory. */
  path: string;
  bytes: number;
}

/** UTF-8 with one replacement mark for each malformed sequence; NUL is kept. */
export function decodeText(bytes: Buffer): string {
  return new TextDecoder("utf-8", { ignoreBOM: true }).decode(bytes);
}

/** What a terminal would leave of it: no escape sequences, no empty lines at the end. */
export function cleanTerminalText(text: string): string {
  const plain = text.replace(ANSI, "");
  // Not `/\n+$/`: that looks at each line break once for each one before it, and output is foreign.
  let end = plain.length;
  while (plain[end - 1] === "\n") end -= 1;
  return plain.slice(0, end);
}

export function fitsResult(text: string): boolean {
  return (
    text.length <= MAX_RESULT_CHARS &&
    // Escaping makes a unit six bytes at most: short texts need no count.
    (text.length * 6 <= MAX_RESULT_JSON_BYTES ||
      Buffer.byteLength(JSON.stringify(text)) <= MAX_RESULT_JSON_BYTES)
  );
}

/** The first `units` UTF-16 units of the text, one fewer when that would cut a pair. */
export function headOf(text: string, units: number): string {
  return text.slice(0, isInsidePair(text, units) ? units - 1 : units);
}

/** The last `units` UTF-16 units of the text, one fewer when that would cut a pair. */
export function tailOf(text: string, units: number): string {
  const start = Math.max(0, text.length - units);
  return text.slice(isInsidePair(text, start) ? start + 1 : start);
}

function isInsidePair(text: string, index: number): boolean {
  if (index <= 0 || index >= text.length) return false;
  return isBetween(text, index, 0xdc_00, 0xdf_ff) && isBetween(text, index - 1, 0xd8_00, 0xdb_ff);
}

function isBetween(text: string, index: number, low: number, high: number): boolean {
  const unit = text.charCodeAt(index);
  return unit >= low && unit <= high;
}

/** Head, a line that says what is missing and where it is, tail. */
export function previewOutput(
  raw: RawOutput,
  stored: StoredOutput | undefined,
  clean: (text: string) => string,
): string {
  const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  // `stream` holds back a character whose bytes the cut divides.
  const head = clean(decoder.decode(raw.head.subarray(0, PREVIEW_BYTES), { stream: true }));
  const tail = clean(decodeText(fromCharacterStart(raw.tail.subarray(-PREVIEW_BYTES))));
  return [
    headOf(head, PREVIEW_CHARS),
    `\n[output cut here: ${raw.totalBytes} bytes in all. ${whereIs(raw, stored)}]\n`,
    tailOf(tail, PREVIEW_CHARS),
  ].join("\n");
}

function whereIs(raw: RawOutput, stored: StoredOutput | undefined): string {
  if (stored === undefined) return "The whole output could not be kept.";
  const how = `${stored.path} (~/${stored.path} in bash); read it by view_range or grep it`;
  return stored.bytes === raw.totalBytes
    ? `The whole output is in ${how}.`
    : `The first ${stored.bytes} bytes are in ${how}.`;
}

/** Without the leading rest of a character that begins before the cut. */
export function fromCharacterStart(bytes: Buffer): Buffer {
  let start = 0;
  while (start < 3 && ((bytes[start] ?? 0) & 0xc0) === 0x80) start += 1;
  return bytes.subarray(start);
}
