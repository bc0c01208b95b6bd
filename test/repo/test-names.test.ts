import { readdirSync } from "node:fs";
import { describe, expect, it } from "@jest/globals";

/** One word for parts that a test puts together (docs/glossary.md): `rig`. */
const OTHER_WORDS = /(?:^|[-/])(?:beds?|benches|bench|fixtures?)(?:[-.]|$)/;
/** Scripts outside this repository import these files by path; benchmarks are no rigs. */
const KEPT = ["integration/harness-bed.ts", "integration/sandbox-fixture.ts"];

const files = readdirSync("test", { recursive: true, encoding: "utf8" }).filter(
  (name) => name.endsWith(".ts") && !name.startsWith("bench/"),
);

describe("files of tests", () => {
  it("are called by the glossary's word", () => {
    expect(files.filter((name) => OTHER_WORDS.test(name) && !KEPT.includes(name))).toEqual([]);
  });

  it("stand in a folder of their subject", () => {
    const loose = /^integration\/[^/]+\.test\.ts$/;
    expect(files.filter((name) => loose.test(name))).toEqual([]);
  });

  it("a forbidden name is found", () => {
    expect(["security/bed.ts", "a/vault-bed.ts"].every((name) => OTHER_WORDS.test(name))).toBe(
      true,
    );
    expect(OTHER_WORDS.test("security/embed.ts")).toBe(false);
  });
});
