import { describe, expect, it } from "@jest/globals";
import { isLiteral, matchesSegment, parseGlob } from "./glob-pattern.ts";

function segmentsOf(pattern: string) {
  const parsed = parseGlob(pattern);
  if (typeof parsed === "string") throw new Error(parsed);
  return parsed;
}

const texts = (pattern: string) =>
  segmentsOf(pattern).map((segments) => segments.map(({ text }) => text).join("/"));
const matches = (pattern: string, name: string) =>
  segmentsOf(pattern).some(([segment]) => segment !== undefined && matchesSegment(segment, name));

describe("a segment", () => {
  it.each([
    ["*.ts", "a.ts", true],
    ["*.ts", ".ts", true],
    ["*", ".hidden", true],
    ["*.ts", "a.tsx", false],
    ["a*b*c", "a-b-b-c", true],
    ["a*b*c", "a-c", false],
    ["?.md", "🚢.md", true],
    ["[ab].md", "b.md", true],
    ["[!ab].md", "b.md", false],
    ["[a-c]x", "bx", true],
    ["[]]x", "]x", true],
    ["[", "[", true],
    ["[id]", "[id]", true],
    ["[id]", "i", true],
    ["\\[id\\]", "[id]", true],
    ["\\[id\\]", "i", false],
    ["\\*", "*", true],
    ["\\*", "x", false],
    ["**", "anything", true],
  ])("%s, %s: %s", (pattern, name, expected) => {
    expect(matches(pattern, name)).toBe(expected);
  });

  it("takes time that grows with the name only, whatever the pattern", () => {
    const started = performance.now();

    expect(matches(`${"*a".repeat(1000)}*b`, "a".repeat(4000))).toBe(false);

    expect(performance.now() - started).toBeLessThan(2000);
  });

  it.each([
    ["node_modules", true],
    ["\\*", true],
    ["*", false],
    ["[n]ode_modules", false],
    ["**", false],
  ])("%s is a written-out name: %s", (pattern, expected) => {
    expect(segmentsOf(pattern)[0]?.map(isLiteral)).toEqual([expected]);
  });
});

describe("parseGlob", () => {
  it.each([
    ["a/{b,c}/d", ["a/b/d", "a/c/d"]],
    ["{a,b{c,d}}", ["a", "bc", "bd"]],
    ["{a/b,c}/d", ["a/b/d", "c/d"]],
    ["{single}", ["{single}"]],
    ["a\\{b,c\\}", ["a\\{b,c\\}"]],
    ["./a//b/", ["a/b"]],
    ["{a,", ["{a,"]],
  ])("%s", (pattern, expected) => {
    expect(texts(pattern)).toEqual(expected);
  });

  it.each([
    ["/etc/*", /absolute/],
    ["../x", /".."/],
    ["a/{b,..}/c", /".."/],
    ["{a,b}".repeat(20), /alternatives/],
    ["x".repeat(5000), /longer/],
  ])("refuses %j", (pattern, reason) => {
    expect(parseGlob(pattern)).toMatch(reason);
  });
});
