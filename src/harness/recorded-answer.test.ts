import { describe, expect, it } from "@jest/globals";
import { LIMITS } from "../protocol/session-event.ts";
import type { Block, CallFault } from "./model.ts";
import { MAX_CALLS, type RecordedAnswer, recordedAnswer } from "./recorded-answer.ts";

const call = (id: unknown, input: unknown = {}, name = "bash"): Block => ({
  type: "tool_use",
  id,
  name,
  input,
});

function record(
  content: Block[],
  { stopReason = "tool_use", faults = {}, taken = [] as string[] } = {},
): RecordedAnswer & { ids: unknown[] } {
  let made = 0;
  const usage = {
    input_tokens: 0,
    output_tokens: 0,
    cache_creation_input_tokens: 0,
    cache_read_input_tokens: 0,
  };
  const byPlace = new Map(
    Object.entries<CallFault>(faults).map(([place, fault]) => [Number(place), fault]),
  );
  const recorded = recordedAnswer(
    { content, stopReason, faults: byPlace, usage },
    {
      isTaken: (id) => taken.includes(id),
      newId: () => {
        made += 1;
        return `new_${made}`;
      },
      maxOutputTokens: 100,
    },
  );
  return { ...recorded, ids: recorded.content.map((block) => block["id"]) };
}

describe("what the log keeps of an answer", () => {
  it("has an id for each call that no other call has", () => {
    const { ids } = record([call("a"), call("a"), call("b"), call("c")], { taken: ["c"] });

    expect(ids).toEqual(["a", "new_1", "b", "new_2"]);
  });

  it.each([undefined, "", "with space", "é", 7, "x".repeat(300)])(
    "has an id that the API takes back, whatever came: %j",
    (id) => {
      expect(record([call(id)]).ids).toEqual(["new_1"]);
    },
  );

  it("has no call of a model that declined", () => {
    const text = { type: "text", text: "No." };

    expect(record([text, call("a")], { stopReason: "refusal" })).toMatchObject({
      content: [text],
      notMade: new Map(),
    });
  });

  it.each<[CallFault, string, RegExp]>([
    ["cut", "max_tokens", /cut off: .* 100 output tokens .* not made. Make it smaller/],
    ["cut", "model_context_window_exceeded", /cut off: .* end of the context window/],
    ["unreadable", "tool_use", /not a JSON object .* not made/],
  ])(
    "tells the model of a call that is %s by %s, and makes the others",
    (fault, stopReason, want) => {
      const { content, notMade } = record([call("a", { x: 1 }), call("b")], {
        stopReason,
        faults: { 1: fault },
      });

      expect(content).toEqual([call("a", { x: 1 }), call("b")]);
      expect([...notMade]).toEqual([["b", expect.stringMatching(want)]]);
    },
  );

  it("keeps a call that is too large without its input, and tells the model", () => {
    const { content, notMade } = record([call("a", { text: "x".repeat(200_000) }), call("b")]);

    expect(content).toEqual([call("a"), call("b")]);
    expect(notMade.get("a")).toMatch(/larger than the 160 KiB .* not made. Make it smaller/);
  });

  it("fits into an event, whatever the model wrote", () => {
    const long = { type: "text", text: "é".repeat(200_000) };
    const thought = { type: "thinking", thinking: "x".repeat(300_000), signature: "s" };
    const { content, notMade } = record([
      thought,
      long,
      call("a", { text: "x".repeat(150_000) }),
      call("b", { text: "x".repeat(140_000) }),
      call("c", { text: "small" }),
    ]);

    expect(Buffer.byteLength(JSON.stringify(content))).toBeLessThan(LIMITS.eventBytes);
    expect(content.map((block) => block["id"] ?? block.type)).toEqual(["text", "a", "b", "c"]);
    expect(content.at(-1)).toEqual(call("c", { text: "small" }));
    expect(notMade.size).toBeGreaterThan(0);
  });
});

describe("an answer of very many calls", () => {
  it("keeps what fits into a batch, and one more that says which were not made", () => {
    const content = Array.from({ length: 4000 }, (_, i) => call(`t${i}`));

    const { ids, notMade } = record(content);

    expect(ids).toHaveLength(MAX_CALLS + 1);
    expect([...notMade.keys()]).toEqual([`t${MAX_CALLS}`]);
    expect(notMade.get(`t${MAX_CALLS}`)).toMatch(
      /held 4000 calls, and one answer may hold 128\. This call and the 3871 after it were not made/,
    );
  });
});
