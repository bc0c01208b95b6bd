import { describe, expect, it } from "@jest/globals";
import { createSeededRng } from "../../test/fakes/seeded-rng.ts";
import { LIMITS } from "../protocol/session-event.ts";
import { resultEvent } from "./run-context.ts";
import { headAndTail, toolText } from "./safe-text.ts";

describe("the text of a tool result", () => {
  it.each([-3, -2, -1, 0, 1])("is cut between characters with an emoji at the cap %i", (shift) => {
    const text = `${"x".repeat(LIMITS.toolResultChars / 2 + shift)}${"🚢".repeat(60_000)}`;

    const capped = toolText(text);

    expect(capped.isWellFormed()).toBe(true);
    expect(capped.length).toBeLessThanOrEqual(LIMITS.toolResultChars);
    expect(capped).toMatch(/characters left out/);
  });

  it("stays within the bytes of JSON, whatever the characters cost", () => {
    for (const character of ["€", "\u0001", '"', "🚢"]) {
      const capped = toolText(character.repeat(120_000));

      expect(Buffer.byteLength(JSON.stringify(capped))).toBeLessThanOrEqual(LIMITS.toolResultBytes);
    }
  });

  it.each(["", " ", "\n\n"])("is a note when it is blank: %j", (text) => {
    expect(toolText(text)).toBe("(no output)");
  });

  it("keeps head and tail and says how much is missing", () => {
    expect(headAndTail(`${"a".repeat(500)}${"b".repeat(500)}`, 100)).toMatch(
      /^a+\n\[… \d+ characters left out …\]\nb+$/,
    );
    expect(headAndTail("short", 100)).toBe("short");
  });
});

it("a result fits into an event of the log, whoever made it, and a small one is left alone", () => {
  const rng = createSeededRng();
  const result = (content: string) =>
    resultEvent(rng, "t1", { content, isError: true, outcome: "denied" }).data.content;

  // A reason for a refusal may have the size of an event, and escapes make it larger.
  const long = result("\u0001🚢".repeat(120_000));

  expect(Buffer.byteLength(JSON.stringify(long))).toBeLessThanOrEqual(LIMITS.toolResultBytes);
  expect(long).toContain("characters left out");
  expect(result("")).toBe("");
  expect(result("ok")).toBe("ok");
});
