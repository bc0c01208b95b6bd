import { describe, expect, it } from "@jest/globals";
import { EventLog } from "../../test/builders/event-log.ts";
import { contextTokens, planCompaction, summaryRequest } from "./compaction.ts";
import { buildTranscript } from "./transcript.ts";

const window = { contextTokens: 4000, maxOutputTokens: 1000 };

/** `rounds` of one call with a result of `chars` characters. */
function rounds(count: number, chars: number): EventLog {
  const log = new EventLog().say("task");
  for (let i = 1; i <= count; i += 1) {
    log
      .ask()
      .call([`t${i}`])
      .result(`t${i}`, "x".repeat(chars));
  }
  return log;
}

function plan(log: EventLog, forced = false) {
  return planCompaction({ events: log.events, upto: log.seq, fixedTokens: 100, window, forced });
}

describe("compaction", () => {
  it("is left alone while there is room", () => {
    expect(plan(rounds(2, 100))).toEqual({ kind: "none" });
  });

  it("cuts where no call loses its result, and what is kept fits", () => {
    const log = rounds(8, 2000);

    const decision = plan(log);

    if (decision.kind !== "compact") throw new Error(decision.kind);
    log.add("context.compacted", { from: 1, to: decision.to, summary: "s" });
    const kept = buildTranscript(log.events, log.seq);
    const results = kept.flatMap(({ content }) =>
      content.filter((block) => block.type === "tool_result"),
    );
    expect(kept[0]?.role).toBe("user");
    expect(kept[1]?.role).toBe("assistant");
    expect(results).not.toEqual([]);
    expect(results.map((block) => block["content"])).toEqual(results.map(() => "x".repeat(2000)));
    expect(contextTokens(log.events, log.seq, 100)).toBeLessThan(3000);
    expect(plan(log)).toEqual({ kind: "none" });
  });

  it("counts with the endpoint's numbers where it has them", () => {
    const log = new EventLog().say("task").ask().answer("x");
    log.ask().answer("y", {
      usage: {
        input_tokens: 10,
        output_tokens: 90,
        cache_creation_input_tokens: 1000,
        cache_read_input_tokens: 2000,
      },
    });

    expect(contextTokens(log.events, log.seq, 0)).toBe(3101);
    expect(plan(log).kind).toBe("compact");
  });

  it("is stuck when the last round alone is too large and nothing is left to cut", () => {
    const log = rounds(1, 20_000);

    expect(plan(log)).toEqual({ kind: "stuck" });
    expect(plan(rounds(1, 10), true)).toEqual({ kind: "stuck" });
  });

  it("asks for the summary with the same prefix and one instruction more", () => {
    const log = rounds(3, 10);
    const request = summaryRequest(log.events, 5, {
      model: "m",
      maxTokens: 9000,
      system: undefined,
      tools: [],
    });

    const prefix = buildTranscript(log.events, 5);
    expect(request.messages.slice(0, -1)).toEqual(prefix.slice(0, -1));
    expect(request.messages.at(-1)?.content.at(-1)?.text).toMatch(
      /^Summarise the conversation so far/,
    );
    expect(request.maxTokens).toBe(4096);
  });
});
