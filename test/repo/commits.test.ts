import { execFileSync } from "node:child_process";
import { expect, it } from "@jest/globals";

/** The rule of CONTRIBUTING.md came in on this day; older titles stay as they are. */
const SINCE = "2026-12-01T00:00:00Z";
const MAX_TITLE = 72;

/** What is wrong with a commit's title; undefined when it is `area: what it does now`. */
function problemOf(title: string): string | undefined {
  if (title.length > MAX_TITLE) return `${title.length} characters, at most ${MAX_TITLE}: ${title}`;
  if (!/^[a-z0-9][a-z0-9 ,/-]*: \S/.test(title)) return `not \`area: what it does now\`: ${title}`;
  return undefined;
}

/** Titles of this checkout's new commits; none in an unpacked archive, which has no history. */
function newTitles(): string[] {
  const args = ["log", "--no-merges", `--since=${SINCE}`, "--format=%s"];
  try {
    return execFileSync("git", args, { encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] })
      .split("\n")
      .filter((title) => title !== "");
  } catch {
    return [];
  }
}

it("titles of new commits say the area and what it does now, in 72 characters", () => {
  expect(newTitles().map(problemOf).filter(Boolean)).toEqual([]);
});

it.each([
  { title: "proxy: repeated encodings are refused", fine: true },
  { title: "sessions, harness: a stalled store is no death", fine: true },
  { title: "Proxy: repeated encodings are refused", fine: false },
  { title: "Repeated encodings are refused", fine: false },
  { title: "proxy:", fine: false },
  { title: `proxy: ${"x".repeat(MAX_TITLE)}`, fine: false },
])("$title is a title: $fine", ({ title, fine }) => {
  expect(problemOf(title) === undefined).toBe(fine);
});
