import { expect } from "@jest/globals";
import { buildTranscript, withCacheBreakpoints } from "../../../src/harness/transcript.ts";
import type { SessionEvent } from "../../../src/protocol/session-event.ts";
import type { RequestRecord } from "../../../src/scripted-model/request-log.ts";
import { eventsOf } from "../harness-bed.ts";

/**
 * Invariants of a log at rest (docs/design/session-log.md#invariants); the names are the page's.
 */
export function expectInvariants(events: SessionEvent[], requests: readonly RequestRecord[]): void {
  expect(events.map((event) => event.seq)).toEqual(events.map((_, index) => index + 1));
  expectRequestsPaired(events);
  expectOneResultEach(events);
  expectContextsAreFolds(events, requests);
}

/** I5: each request_start has exactly one end or abandonment, later; `upto` never goes back. */
function expectRequestsPaired(events: SessionEvent[]): void {
  let open: string | undefined;
  let upto = 0;
  for (const event of events) {
    if (event.type === "model.request_start") {
      expect(open).toBeUndefined();
      expect(event.data.upto).toBeGreaterThanOrEqual(upto);
      expect(event.data.upto).toBeLessThan(event.seq);
      upto = event.data.upto;
      open = event.data.req;
    } else if (event.type === "model.request_end" || event.type === "model.request_abandoned") {
      expect(event.data.req).toBe(open);
      open = undefined;
    }
  }
  expect(open).toBeUndefined();
}

/** I6: one intent and one result for each tool id, in this order, after the answer that names it. */
function expectOneResultEach(events: SessionEvent[]): void {
  const named = eventsOf(events, "model.request_end").flatMap((end) =>
    end.data.message
      .filter((block) => block.type === "tool_use")
      .map((block) => ({ id: String(block["id"]), seq: end.seq })),
  );
  const intents = eventsOf(events, "tool.intent");
  const results = eventsOf(events, "tool.result");
  expect(intents.map((intent) => intent.data.id)).toEqual(named.map((call) => call.id));
  for (const { id, seq } of named) {
    const intent = intents.find((event) => event.data.id === id);
    const own = results.filter((event) => event.data.id === id);
    expect(own).toHaveLength(1);
    expect(intent?.seq).toBeGreaterThan(seq);
    expect(own[0]?.seq).toBeGreaterThan(intent?.seq ?? 0);
  }
}

/** I8: every context that was sent is the fold of a prefix of the log. */
function expectContextsAreFolds(events: SessionEvent[], requests: readonly RequestRecord[]): void {
  const folds = eventsOf(events, "model.request_start").map((start) =>
    JSON.stringify(withCacheBreakpoints(buildTranscript(events, start.data.upto))),
  );
  for (const request of requests) {
    if (request.turn === -1) continue;
    expect(folds).toContain(JSON.stringify(request.messages));
  }
}
