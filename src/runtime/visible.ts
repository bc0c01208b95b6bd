/**
 * Characters that a terminal obeys instead of showing, or that show something else than what is
 * there: C0 and C1 controls, marks of writing direction, separators that break a line, and
 * characters without a form. Line end and tab are text.
 */
const OBEYED =
  // oxlint-disable-next-line no-control-regex -- these are what it looks for
  /[\0-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]|[\u{e0000}-\u{e007f}]|\p{Surrogate}/gu;

/** Foreign text as it may be written to a terminal: what would act there is shown as `\x1b` or `\u202e`. */
export function visible(text: string): string {
  return text.replaceAll(OBEYED, shown);
}

/** The same in one line. */
export function visibleLine(text: string): string {
  return visible(text).replaceAll("\n", "\\n");
}

function shown(character: string): string {
  if (character === "\r") return "\\r";
  const code = character.codePointAt(0) ?? 0;
  const hex = code.toString(16);
  if (code > 0xffff) return `\\u{${hex}}`;
  return code > 0xff ? `\\u${hex.padStart(4, "0")}` : `\\x${hex.padStart(2, "0")}`;
}
