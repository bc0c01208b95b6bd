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

const base = { model: "m", maxTokens: 9000, system: undefined, tools: [] };

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

    expect(contextTokens(log.events, log.seq, 0)).toBe(3100);
    expect(plan(log).kind).toBe("compact");
  });

  it("summarises the summary before, also when it was made after the events that are replaced now", () => {
    const log = rounds(3, 10);
    const upto = log.seq;
    log.ask().call(["t4"]);
    log.add("context.compacted", { from: 1, to: upto, summary: "what was before" });
    const kept = log.events.filter(({ seq }) => seq > upto);

    const request = summaryRequest(
      kept,
      upto + 2,
      {
        model: "m",
        maxTokens: 9000,
        system: undefined,
        tools: [],
      },
      3000,
    );

    expect(JSON.stringify(request.messages)).toContain("what was before");
  });

  it("cuts the results of the last answer when nothing is left to summarise, until all fits", () => {
    const log = new EventLog().say("task").ask().call(["a", "b"]);
    log.result("a", "x".repeat(20_000)).result("b", "y".repeat(20_000));

    const decision = plan(log);

    if (decision.kind !== "shrink") throw new Error(decision.kind);
    const { resultChars } = decision;
    log.ask().add("model.request_abandoned", { req: "req_2", reason: "x" });
    log.add("model.request_start", { req: "r", upto: 7, model: "m", result_chars: resultChars });
    expect(contextTokens(log.events, log.seq, 100)).toBeLessThan(3000);
    expect(plan(log)).toEqual({ kind: "none" });
  });

  it("cuts further each time the endpoint refuses what fits by our count", () => {
    const log = rounds(1, 9000);
    const limits = [1, 2].map((n) => {
      const decision = plan(log, true);
      if (decision.kind !== "shrink") throw new Error(decision.kind);
      const start = { req: `r${n}`, upto: log.seq, model: "m", result_chars: decision.resultChars };
      log.add("model.request_start", start).add("model.request_abandoned", {
        req: `r${n}`,
        reason: "too_long",
      });
      return decision.resultChars;
    });

    expect(limits).toEqual(limits.toSorted((a, b) => b - a));
    expect(new Set(limits).size).toBe(2);
  });

  it("is stuck when there is neither history nor a result that could be made smaller", () => {
    const log = new EventLog().say("x".repeat(20_000));

    expect(plan(log)).toEqual({ kind: "stuck" });
    expect(plan(rounds(1, 10), true)).toEqual({ kind: "stuck" });
  });

  it("comes at once when an answer has filled the window, and not again after it", () => {
    const log = rounds(2, 100).ask().answer("so", { stop_reason: "model_context_window_exceeded" });

    const decision = plan(log);

    if (decision.kind !== "compact") throw new Error(decision.kind);
    log.add("context.compacted", { from: 1, to: decision.to, summary: "s" });
    expect(plan(log)).toEqual({ kind: "none" });
    const alone = new EventLog().say("x").ask();
    alone.answer("so", { stop_reason: "model_context_window_exceeded" });
    expect(plan(alone)).toEqual({ kind: "none" });
  });

  it("estimates where the endpoint counts only what it wrote", () => {
    const log = rounds(1, 3000)
      .ask()
      .answer("y", {
        usage: {
          input_tokens: 0,
          output_tokens: 5,
          cache_creation_input_tokens: 0,
          cache_read_input_tokens: 0,
        },
      });

    expect(contextTokens(log.events, log.seq, 0)).toBeGreaterThan(800);
  });

  it("asks for the summary with the same prefix and one instruction more", () => {
    const log = rounds(3, 10);
    const request = summaryRequest(log.events, 5, base, 100_000);

    const prefix = buildTranscript(log.events, 5);
    expect(request.messages.slice(0, -1)).toEqual(prefix.slice(0, -1));
    expect(request.messages.at(-1)?.content.at(-1)?.text).toMatch(
      /^Summarise the conversation so far/,
    );
    expect(request.maxTokens).toBe(4096);
  });

  it("cuts the results in the request for a summary where they do not fit", () => {
    const log = rounds(2, 50_000);

    const { messages } = summaryRequest(log.events, log.seq, base, 3000);

    expect(JSON.stringify(messages).length).toBeLessThan(10_500);
    expect(JSON.stringify(messages)).toContain("This result is shortened");
  });
});
