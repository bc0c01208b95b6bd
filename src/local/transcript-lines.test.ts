import { expect, it } from "@jest/globals";
import type { SessionEvent } from "../protocol/session-event.ts";
import { transcriptLines } from "./transcript-lines.ts";

function toolResult(content: string, outcome: "known" | "unknown" = "known"): SessionEvent {
  const data = { id: "toolu_1", content, is_error: outcome !== "known", outcome };
  return { id: "sevt_1", type: "tool.result", seq: 1, epoch: 1, ts: 0, data };
}

it("a result of several lines is indented under its label", () => {
  expect(transcriptLines(toolResult("one\ntwo\n"))).toEqual(["result    one", "          two"]);
});

it("a long result shows its head and tail and says how much is left out", () => {
  const text = Array.from({ length: 30 }, (_, i) => `line ${i}`).join("\n");

  const lines = transcriptLines(toolResult(text));

  expect(lines).toHaveLength(13);
  expect(lines[6]).toContain("18 more lines");
  expect(lines.at(-1)).toContain("line 29");
});

it("a result nobody can vouch for is not shown as an ordinary failure", () => {
  expect(transcriptLines(toolResult("it may have run", "unknown"))[0]).toMatch(/^unknown /);
});
