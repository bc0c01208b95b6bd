import { describe, expect, it } from "@jest/globals";
import * as fc from "fast-check";
import {
  cleanTerminalText,
  decodeText,
  fitsResult,
  fromCharacterStart,
  headOf,
  previewOutput,
  tailOf,
} from "./output.ts";

const SHIP = "🚢";

describe("decoding", () => {
  it("makes one replacement mark of a lone byte and keeps NUL and a leading BOM", () => {
    expect(decodeText(Buffer.from([0xff]))).toBe("\u{fffd}");
    expect(decodeText(Buffer.from("\u{feff}a\0b"))).toBe("\u{feff}a\0b");
  });

  it("skips the rest of a character that begins before the cut", () => {
    const bytes = Buffer.from(`${SHIP}x`);
    for (const cut of [1, 2, 3]) {
      expect(decodeText(fromCharacterStart(bytes.subarray(cut)))).toBe("x");
    }
  });
});

describe("cleaning", () => {
  it("takes away control sequences and empty lines at the end, and no others", () => {
    expect(cleanTerminalText("\u001B[31m\n\nred\u001B[0m\n\nx\n\n")).toBe("\n\nred\n\nx");
    expect(cleanTerminalText("\n\n\n")).toBe("");
  });

  it.each([
    { name: "empty lines", text: `${"\n".repeat(300_000)}x` },
    { name: "beginnings of control sequences", text: "\u001B[1;".repeat(100_000) },
    { name: "a control sequence that never ends", text: `\u001B[${"1".repeat(300_000)}` },
    {
      name: "one that has spaces too",
      text: `\u001B[${"1".repeat(150_000)}${" ".repeat(150_000)}`,
    },
  ])("takes time that grows with the length only: $name", ({ text }) => {
    const started = performance.now();
    cleanTerminalText(text);

    expect(performance.now() - started).toBeLessThan(1000);
  });
});

describe("cuts", () => {
  it("never divide a surrogate pair", () => {
    const text = fc.string({ unit: "grapheme", maxLength: 40 });
    fc.assert(
      fc.property(text, fc.nat(50), (value, units) => {
        expect(headOf(value, units).isWellFormed()).toBe(value.isWellFormed());
        expect(tailOf(value, units).isWellFormed()).toBe(value.isWellFormed());
        expect(value.startsWith(headOf(value, units))).toBe(true);
        expect(value.endsWith(tailOf(value, units))).toBe(true);
        expect(headOf(value, units).length).toBeLessThanOrEqual(units);
      }),
    );
  });

  it("leave out one unit rather than half a pair", () => {
    expect(headOf(`a${SHIP}b`, 2)).toBe("a");
    expect(tailOf(`a${SHIP}b`, 2)).toBe("b");
    expect(headOf(`a${SHIP}b`, 3)).toBe(`a${SHIP}`);
    expect(tailOf("abc", 5)).toBe("abc");
  });
});

describe("what fits a result", () => {
  it.each([
    { name: "100,000 characters", text: "x".repeat(100_000), fits: true },
    { name: "100,001 characters", text: "x".repeat(100_001), fits: false },
    { name: "60,000 characters of three bytes", text: "€".repeat(60_000), fits: true },
    { name: "70,000 characters of three bytes", text: "€".repeat(70_000), fits: false },
    { name: "40,000 characters of six bytes in JSON", text: "\0".repeat(40_000), fits: false },
  ])("$name: $fits", ({ text, fits }) => {
    expect(fitsResult(text)).toBe(fits);
  });
});

describe("a preview", () => {
  const stored = { path: ".drover/outputs/a.txt", bytes: 400_000 };

  it("shows both ends, the true size and where the rest is", () => {
    const raw = {
      head: Buffer.from("h".repeat(50_000)),
      tail: Buffer.from("t".repeat(50_000)),
      totalBytes: 400_000,
    };

    const text = previewOutput(raw, stored, (t) => t);

    expect(text).toMatch(/^h{10000}\n\n\[output cut here: 400000 bytes in all\. /);
    expect(text).toContain("The whole output is in .drover/outputs/a.txt");
    expect(text).toMatch(/\n\nt{10000}$/);
  });

  it("says how much is kept when the file was cut, and that nothing is when there is none", () => {
    const raw = { head: Buffer.from("h"), tail: Buffer.from("t"), totalBytes: 500_000 };

    expect(previewOutput(raw, stored, (t) => t)).toContain("The first 400000 bytes are in");
    expect(previewOutput(raw, undefined, (t) => t)).toContain("could not be kept");
  });

  it("is well-formed and small as JSON, whatever bytes it is made of", () => {
    const bytes = fc.uint8Array({ minLength: 0, maxLength: 64 });
    fc.assert(
      fc.property(bytes, bytes, fc.nat(3), (a, b, shift) => {
        const repeat = (part: Uint8Array) =>
          Buffer.concat([Buffer.alloc(shift), ...Array.from({ length: 2000 }, () => part)]);
        const raw = { head: repeat(a), tail: repeat(b), totalBytes: 1_000_000 };

        const text = previewOutput(raw, stored, cleanTerminalText);

        expect(text.isWellFormed()).toBe(true);
        expect(Buffer.byteLength(JSON.stringify(text))).toBeLessThan(192 * 1024);
      }),
      { numRuns: 30 },
    );
  });
});

it("terminal sequences and trailing newlines are removed", () => {
  expect(cleanTerminalText("\u{1b}[31mred\u{1b}[0m\nx\n\n")).toBe("red\nx");
});
