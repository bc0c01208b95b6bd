import { expect, it } from "@jest/globals";
import { array, assert, constantFrom, property } from "fast-check";
import { visible, visibleLine } from "./visible.ts";

it.each([
  {
    name: "a clipboard sequence",
    text: "a\x1b]52;c;ZXZpbA==\x07b",
    want: "a\\x1b]52;c;ZXZpbA==\\x07b",
  },
  { name: "a cleared screen", text: "\x1b[2J\x1b[1;1H", want: "\\x1b[2J\\x1b[1;1H" },
  { name: "a C1 control", text: "\x9b2Jx\x9d0;t\x9c", want: "\\x9b2Jx\\x9d0;t\\x9c" },
  { name: "a carriage return", text: "bad\rgood", want: "bad\\rgood" },
  { name: "backspaces", text: "bad\b\b\b", want: "bad\\x08\\x08\\x08" },
  { name: "a turned direction", text: "a\u202egpj.exe\u2066", want: "a\\u202egpj.exe\\u2066" },
  {
    name: "characters without a form",
    text: "a\u200bb\ufeff\u{e0041}",
    want: "a\\u200bb\\ufeff\\u{e0041}",
  },
  { name: "half a character", text: "a\ud83d", want: "a\\ud83d" },
])("$name is shown, not sent", ({ text, want }) => {
  expect(visible(text)).toBe(want);
});

it("text of any language, emoji, tabs and lines stay as they are", () => {
  const text = "über\t日本語\nनमस्ते שלום 👩‍👩‍👧 «—»";

  expect(visible(text)).toBe(text);
});

it("one line stays one line", () => {
  expect(visibleLine("x\nsession   idle: end_turn")).toBe("x\\nsession   idle: end_turn");
});

it("whatever comes, no control leaves but line end and tab", () => {
  const parts = constantFrom(
    "\x1b",
    "\x9b",
    "\r",
    "\x00",
    "\x7f",
    "\x85",
    "\u2028",
    "a",
    "\n",
    "\t",
    "é",
  );
  const anyText = property(array(parts), (list) => {
    expect(visible(list.join("")).replaceAll(/[\n\t]/g, "")).not.toMatch(/\p{Cc}|\u2028/u);
  });

  assert(anyText);
});
