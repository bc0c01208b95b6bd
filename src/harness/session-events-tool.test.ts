import { describe, expect, it } from "@jest/globals";
import { EventLog } from "../../test/builders/event-log.ts";
import { readSessionEvents } from "./session-events-tool.ts";

const { events } = new EventLog()
  .say("first")
  .ask()
  .call(["t"])
  .result("t", "x".repeat(5000))
  .ask()
  .answer("last");

const seqs = (input: unknown) =>
  readSessionEvents(events, input)
    .content.split("\n")
    .filter((line) => /^\d+ 20/.test(line))
    .map((line) => Number(line.split(" ")[0]));

describe("reading one's own log", () => {
  it("gives the newest events that tell something, oldest first", () => {
    expect(seqs({})).toEqual([1, 3, 5, 7]);
    expect(seqs({ limit: 2 })).toEqual([5, 7]);
    expect(seqs({ after: 1, limit: 1 })).toEqual([3]);
    expect(seqs({ before: 5 })).toEqual([1, 3]);
  });

  it("shortens long texts", () => {
    expect(readSessionEvents(events, { after: 4, limit: 1 }).content.length).toBeLessThan(2100);
  });

  it("says so when there is nothing, and what is wrong with an input", () => {
    expect(readSessionEvents(events, { after: 99 })).toEqual({
      content: "No events in this range.",
      isError: false,
    });
    expect(readSessionEvents(events, { after: "x", more: 1 })).toMatchObject({
      isError: true,
      content: expect.stringContaining("after"),
    });
  });
});
