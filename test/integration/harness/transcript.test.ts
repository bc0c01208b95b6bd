import { expect, it } from "@jest/globals";
import * as fc from "fast-check";
import { buildTranscript, withCacheBreakpoints } from "../../../src/harness/transcript.ts";
import { brokenRule, messagesRequest } from "../../../src/scripted-model/request.ts";
import { EventLog } from "../../builders/event-log.ts";

const text = fc.oneof(
  fc.constantFrom("", " ", "hi", "x\ud83d", "\udc00y", "🚢", "\u0000"),
  fc.string({ unit: "binary" }),
);

/** Blocks as a model may send them, odd ones included. */
const blocks = fc.array(
  fc.oneof(
    text.map((value) => ({ type: "text", text: value })),
    fc.constant({ type: "thinking", thinking: "x", signature: "s" }),
    fc.constant({ type: "tool" }),
  ),
  { maxLength: 4 },
);

type Action = (log: EventLog, count: { calls: number }) => void;

/** What may happen to a log, in any order a worker and its clients can bring about. */
const action: fc.Arbitrary<Action> = fc.oneof(
  text.map(
    (value): Action =>
      (log) =>
        void log.say(value),
  ),
  text.map(
    (value): Action =>
      (log) =>
        void log.add("system.message", { content: [{ type: "text", text: value }] }),
  ),
  fc.record({ blocks, late: fc.option(text), results: fc.array(text), partial: fc.boolean() }).map(
    ({ blocks: content, late, results, partial }): Action =>
      (log, count) => {
        log.ask();
        if (late !== null) log.say(late);
        if (partial) return void log.answer("part", { partial: true });
        const ids: string[] = [];
        const message = content.map((block) => {
          if (block.type !== "tool") return block;
          count.calls += 1;
          ids.push(`t${count.calls}`);
          return { type: "tool_use", id: `t${count.calls}`, name: "bash", input: { a: "\ud83d" } };
        });
        log.answer(message);
        // A call may be left without a result: the session was compacted or cut by a bug.
        for (const [index, result] of results.entries()) {
          const id = ids[index];
          if (id !== undefined) log.result(id, result, { is_error: index % 2 === 1 });
        }
      },
  ),
  fc.constant<Action>((log) => void log.ask().abandon()),
  fc.constant<Action>((log) => void log.add("user.interrupt", {})),
  fc.constant<Action>((log) => {
    const end = log.events.findLast((event) => event.type === "model.request_start");
    if (end?.type === "model.request_start" && end.data.upto > 0) {
      log.add("context.compacted", { from: 1, to: end.data.upto, summary: "sum" });
    }
  }),
);

it("whatever a log holds, the request made from it is one the API accepts", () => {
  fc.assert(
    fc.property(fc.array(action, { maxLength: 12 }), (actions) => {
      const log = new EventLog();
      const count = { calls: 0 };
      for (const act of actions) act(log, count);
      const messages = withCacheBreakpoints(buildTranscript(log.events, log.seq));
      const body: unknown = JSON.parse(JSON.stringify({ model: "m", max_tokens: 1, messages }));

      expect(brokenRule(messagesRequest.parse(body))).toBeUndefined();
    }),
    { numRuns: 500 },
  );
});

it("a longer log gives the same context for the same upto", () => {
  fc.assert(
    fc.property(fc.array(action, { maxLength: 10 }), fc.nat(), (actions, cut) => {
      const log = new EventLog();
      const count = { calls: 0 };
      const seqs = [0];
      for (const act of actions) {
        act(log, count);
        seqs.push(log.seq);
      }
      const upto = seqs[cut % seqs.length] ?? 0;
      const prefix = log.events.filter((event) => event.seq <= upto);

      expect(buildTranscript(log.events, upto)).toEqual(buildTranscript(prefix, upto));
    }),
    { numRuns: 300 },
  );
});
