import { isUtf8 } from "node:buffer";

/**
 * Replaces text in the bytes of a file. Pure. Works on bytes, so that all that is not replaced stays as
 * it is, whatever its encoding.
 */
export type EditResult =
  | { content: Buffer; count: number }
  /** Why it cannot be done. */
  | { refused: string };

export interface Edit {
  /** What the file is called in a refusal. */
  path: string;
  oldText: string;
  newText: string;
  all: boolean;
}

export function editBytes(file: Buffer, edit: Edit): EditResult {
  const refused = refuse(file, edit);
  if (refused !== undefined) return { refused };
  const ends = lineEnds(file);
  // Whoever looks for a carriage return has seen it, and means what is written.
  const mayAdapt = ends.crlf > 0 && !edit.oldText.includes("\r");
  const plain = { oldText: edit.oldText, newText: edit.newText };
  const adapted = { oldText: toCrlf(edit.oldText), newText: toCrlf(edit.newText) };
  const tries = !mayAdapt ? [plain] : ends.lf === 0 ? [adapted] : [plain, adapted];
  for (const { oldText, newText } of tries) {
    const places = findAll(file, Buffer.from(oldText));
    if (places.length === 0) continue;
    if (places.length > 1 && !edit.all) {
      return {
        refused: `old_string appears ${places.length} times in ${edit.path} (must be unique)`,
      };
    }
    const content = replaceAt(file, places, Buffer.byteLength(oldText), Buffer.from(newText));
    return { content, count: places.length };
  }
  const hint = ends.crlf > 0 && !mayAdapt ? "; its lines end in CRLF" : "";
  return { refused: `old_string not found in ${edit.path}${hint}` };
}

function refuse(file: Buffer, { path, oldText, newText }: Edit): string | undefined {
  const mark = file.subarray(0, 2).toString("hex");
  if (mark === "fffe" || mark === "feff") {
    return `${path} is UTF-16 text, and edit changes UTF-8 only; convert it in bash (iconv) or change it there`;
  }
  if (file.includes(0)) {
    return `${path} has NUL bytes, so it is not UTF-8 text, which is all that edit changes; change it in bash`;
  }
  if (!isUtf8(file) && !isAscii(oldText + newText)) {
    return `${path} is not UTF-8 text: edit can change only ASCII characters in it; convert it in bash (iconv) or change it there`;
  }
  if (!oldText.isWellFormed() || !newText.isWellFormed()) {
    return "old_string or new_string has half of a surrogate pair, which no file can hold";
  }
  return undefined;
}

function isAscii(text: string): boolean {
  return Buffer.byteLength(text) === text.length;
}

function lineEnds(file: Buffer): { crlf: number; lf: number } {
  const found = { crlf: 0, lf: 0 };
  for (let at = file.indexOf(0x0a); at >= 0; at = file.indexOf(0x0a, at + 1)) {
    if (file[at - 1] === 0x0d) found.crlf += 1;
    else found.lf += 1;
  }
  return found;
}

function toCrlf(text: string): string {
  return text.replaceAll("\r\n", "\n").replaceAll("\n", "\r\n");
}

function findAll(file: Buffer, text: Buffer): number[] {
  const places: number[] = [];
  for (let at = file.indexOf(text); at >= 0; at = file.indexOf(text, at + text.length)) {
    places.push(at);
  }
  return places;
}

function replaceAt(
  file: Buffer,
  places: readonly number[],
  length: number,
  replacement: Buffer,
): Buffer {
  const parts: Buffer[] = [];
  let from = 0;
  for (const at of places) {
    parts.push(file.subarray(from, at), replacement);
    from = at + length;
  }
  return Buffer.concat([...parts, file.subarray(from)]);
}
