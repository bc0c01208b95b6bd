import { describe, expect, it } from "@jest/globals";
import { editBytes } from "./text-edit.ts";

const edit = (file: Buffer | string, oldText: string, newText: string, all = false) => {
  const result = editBytes(Buffer.from(file), { path: "f", oldText, newText, all });
  return "refused" in result ? result.refused : result.content;
};
const bytes = (hex: string) => Buffer.from(hex.replaceAll(" ", ""), "hex");

describe("editBytes", () => {
  it.each([
    ["once", "a b c", "b", "B", false, "a B c"],
    ["everywhere", "a b a", "a", "x", true, "x b x"],
    ["over and over in its own result", "aaaa", "aa", "aaa", true, "aaaaaa"],
    ["with dollar signs as they are", "price", "price", "$& $1 $$", false, "$& $1 $$"],
    ["by nothing", "abc", "b", "", false, "ac"],
  ])("replaces %s", (_, file, oldText, newText, all, expected) => {
    expect(edit(file, oldText, newText, all).toString()).toBe(expected);
  });

  it.each([
    ["two lines", "one\r\ntwo\r\nthree\r\n", "one\ntwo", "1\n2", "1\r\n2\r\nthree\r\n"],
    ["one line by two", "one\r\ntwo\r\n", "two", "2a\n2b", "one\r\n2a\r\n2b\r\n"],
    ["what names CRLF, as it is written", "one\r\ntwo\r\n", "one\r\n", "one\n", "one\ntwo\r\n"],
    ["a line of a file with both ends", "a\nb\r\nc\r\n", "b\nc", "B\nC", "a\nB\r\nC\r\n"],
    ["LF in a file with both ends", "a\nb\nc\r\n", "a\nb", "A\nB", "A\nB\nc\r\n"],
  ])("keeps CRLF: %s", (_, file, oldText, newText, expected) => {
    expect(edit(file, oldText, newText).toString()).toBe(expected);
  });

  it.each([
    ["Latin-1", "78 20 e9 0a 79 3d 32", "y=2", "y=3", "78 20 e9 0a 79 3d 33"],
    ["a UTF-8 byte order mark", "ef bb bf 61 62", "a", "A", "ef bb bf 41 62"],
    ["half a character at the end", "61 e2 82", "a", "b", "62 e2 82"],
  ])("leaves all other bytes as they are: %s", (_, file, oldText, newText, expected) => {
    expect(edit(bytes(file), oldText, newText)).toEqual(bytes(expected));
  });

  it.each([
    ["UTF-16, little-endian", "ff fe 68 00 69 00", "h", "H", /UTF-16/],
    ["UTF-16, big-endian", "fe ff 00 68 00 69", "h", "H", /UTF-16/],
    ["UTF-16 without a mark", "68 00 69 00", "h", "H", /NUL/],
    ["new text that Latin-1 has in another way", "e9 61", "a", "é", /not UTF-8/],
    ["old text that Latin-1 has in another way", "c3 a9 ff", "é", "e", /not UTF-8/],
    ["half a surrogate pair", "61", "a", "\u{d83d}", /surrogate/],
    ["what is not there", "61 62", "x", "y", /^old_string not found in f$/],
    ["CRLF that is not there", "61 0d 0a 62", "b\r\n", "y", /its lines end in CRLF/],
    ["what is there twice", "61 62 61", "a", "y", /appears 2 times/],
  ])("refuses %s", (_, file, oldText, newText, reason) => {
    expect(edit(bytes(file), oldText, newText)).toMatch(reason);
  });
});
