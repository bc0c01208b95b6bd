import { describe, expect, it } from "@jest/globals";
import { EventLog } from "../../test/builders/event-log.ts";
import { type History, readSessionEvents } from "./session-events-tool.ts";

const { events } = new EventLog()
  .say("first")
  .ask()
  .call(["t"])
  .result("t", "x".repeat(5000))
  .ask()
  .answer("last");

const history: History = async function* ({
  after = 0,
  before = Number.POSITIVE_INFINITY,
  reverse,
}) {
  const slice = events.filter(({ seq }) => seq > after && seq < before);
  yield* reverse ? slice.toReversed() : slice;
};
const read = (input: unknown) => readSessionEvents(history, input);

const seqs = async (input: unknown) =>
  (await read(input)).content
    .split("\n")
    .filter((line) => /^\d+ 20/.test(line))
    .map((line) => Number(line.split(" ")[0]));

describe("reading one's own log", () => {
  it("gives the newest events that tell something, oldest first", async () => {
    expect(await seqs({})).toEqual([1, 3, 5, 7]);
    expect(await seqs({ limit: 2 })).toEqual([5, 7]);
    expect(await seqs({ after: 1, limit: 1 })).toEqual([3]);
    expect(await seqs({ before: 5 })).toEqual([1, 3]);
  });

  it("shortens long texts", async () => {
    expect((await read({ after: 4, limit: 1 })).content.length).toBeLessThan(2100);
  });

  it("says so when there is nothing, and what is wrong with an input", async () => {
    expect(await read({ after: 99 })).toEqual({
      content: "No events in this range.",
      isError: false,
    });
    expect(await read({ after: "x", more: 1 })).toMatchObject({
      isError: true,
      content: expect.stringContaining("after"),
    });
  });
});
