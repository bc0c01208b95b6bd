import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, it } from "@jest/globals";
import * as fc from "fast-check";
import { fileNameOf, OutputStore } from "./output-store.ts";

let root: string;
let workspace: string;
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), "drover-output-"));
  workspace = join(root, "workspace");
  mkdirSync(workspace);
});
afterEach(() => rmSync(root, { recursive: true, force: true }));

const same = (text: string) => text;
const store = () => new OutputStore({ workspace });
const outputFile = (name: string) => join(workspace, ".drover/outputs", name);

it("a small output is given whole and leaves no file in the workspace", () => {
  const recorder = store().record("toolu_a");
  recorder.write(Buffer.from("one "));
  recorder.write(Buffer.from("two"));

  expect(recorder.end(same)).toEqual({ text: "one two", whole: true, totalBytes: 7 });
  expect(readdirSync(workspace)).toEqual([]);
});

it("a large output is in its file byte by byte, however it came in", () => {
  fc.assert(
    fc.property(
      fc.array(fc.integer({ min: 1, max: 90_000 }), { minLength: 1, maxLength: 8 }),
      (sizes) => {
        const recorder = store().record("toolu_a");
        const reused = Buffer.alloc(90_000);
        const all: Buffer[] = [];
        for (const [index, size] of [...sizes, 90_000, 90_000, 90_000].entries()) {
          reused.fill(0x61 + (index % 26), 0, size);
          recorder.write(reused.subarray(0, size));
          all.push(Buffer.from(reused.subarray(0, size)));
        }
        const whole = Buffer.concat(all);

        const { text, totalBytes } = recorder.end(same);

        expect(totalBytes).toBe(whole.length);
        expect(readFileSync(outputFile("toolu_a.txt")).equals(whole)).toBe(true);
        expect(text.startsWith(whole.toString("utf8", 0, 10_000))).toBe(true);
        expect(text.endsWith(whole.subarray(-10_000).toString("utf8"))).toBe(true);
      },
    ),
    { numRuns: 20 },
  );
});

it("an output that is short in bytes and too long as JSON is kept in a file as well", () => {
  const recorder = store().record("toolu_a");
  recorder.write(Buffer.alloc(40_000));

  const { text, whole } = recorder.end(same);

  expect(whole).toBe(false);
  expect(text).toContain("40000 bytes in all");
  expect(readFileSync(outputFile("toolu_a.txt")).length).toBe(40_000);
});

it("a file that cannot be made costs the file, not the result", () => {
  writeFileSync(join(workspace, ".drover"), "in the way");
  const recorder = store().record("toolu_a");
  recorder.write(Buffer.alloc(300_000, "x"));

  const { text } = recorder.end(same);

  expect(text).toContain("300000 bytes in all. The whole output could not be kept.");
});

it("all of an output is heard as it comes, however large", () => {
  let heard = 0;
  const recorder = store().record("toolu_a", (chunk) => {
    heard += chunk.length;
  });
  recorder.write(Buffer.from("printed €"));
  recorder.write(Buffer.alloc(250_000));

  expect(heard).toBe(250_011);
});

it("repositories in the workspace do not see the files", () => {
  const recorder = store().record("toolu_a");
  recorder.write(Buffer.alloc(300_000, "x"));
  recorder.end(same);

  expect(readFileSync(join(workspace, ".drover/.gitignore"), "utf8")).toBe("*\n");
});

it("a file name never leaves the folder, and different ids have different names", () => {
  fc.assert(
    fc.property(fc.string({ minLength: 1 }), fc.string({ minLength: 1 }), (a, b) => {
      expect(fileNameOf(a)).toMatch(/^[\w-]+\.txt$/);
      expect(fileNameOf(a) === fileNameOf(b)).toBe(a === b);
    }),
  );
  expect(fileNameOf("toolu_01AbC")).toBe("toolu_01AbC.txt");
});
