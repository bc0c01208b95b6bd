import { describe, expect, it } from "@jest/globals";
import * as fc from "fast-check";
import {
  applyRecord,
  emptyState,
  type JournalRecord,
  parseJournal,
  recordsOf,
} from "./journal-record.ts";

const result = { content: "out", is_error: false, outcome: "known" as const };

function stateOf(records: readonly JournalRecord[]) {
  const state = emptyState();
  for (const record of records) applyRecord(state, record);
  return state;
}

const ids = fc.constantFrom("a", "b", "c", "d");
const record: fc.Arbitrary<JournalRecord> = fc.oneof(
  ids.map((id) => ({ t: "started" as const, id, name: "bash", inputHash: `hash-${id}` })),
  ids.map((id) => ({ t: "done" as const, id, name: "bash", inputHash: `hash-${id}`, result })),
  ids.map((id) => ({ t: "done" as const, id, name: "", result })),
  fc.array(ids, { maxLength: 3 }).map((acked) => ({ t: "acked" as const, ids: acked })),
  fc.nat(9).map((epoch) => ({
    t: "bound" as const,
    sessionId: "s",
    tenant: "t",
    hand: "h",
    generation: 1,
    epoch,
  })),
);

describe("the journal's records", () => {
  it("a call that started and has no end is told apart from one that ended", () => {
    const state = stateOf([
      { t: "started", id: "a", name: "bash", inputHash: "h" },
      { t: "started", id: "b", name: "bash", inputHash: "h" },
      { t: "done", id: "b", name: "bash", inputHash: "h", result },
    ]);

    expect(state.calls.get("a")?.result).toBeUndefined();
    expect(state.calls.get("b")?.result).toEqual(result);
  });

  it("an acknowledgement of a running call is ignored", () => {
    const state = stateOf([
      { t: "started", id: "a", name: "bash", inputHash: "h" },
      { t: "acked", ids: ["a"] },
    ]);

    expect(state.calls.has("a")).toBe(true);
    expect(state.acked.has("a")).toBe(false);
  });

  it("the newest ten thousand acknowledged ids are remembered", () => {
    const many = Array.from({ length: 10_001 }, (_, i) => `id-${i}`);

    const { acked } = stateOf([{ t: "acked", ids: many }]);

    expect(acked.size).toBe(10_000);
    expect(acked.has("id-0")).toBe(false);
    expect(acked.has("id-10000")).toBe(true);
  });

  it("a compacted journal adds up to the same state", () => {
    fc.assert(
      fc.property(fc.array(record, { maxLength: 30 }), (records) => {
        const state = stateOf(records);

        expect(stateOf(recordsOf(state))).toEqual(state);
      }),
    );
  });

  it("damaged lines are counted and skipped, whatever they hold", () => {
    fc.assert(
      fc.property(fc.string(), (noise) => {
        const line = JSON.stringify({ t: "done", id: "a", name: "bash", result });
        const text = `${noise.replaceAll("\n", "")}\n${line}\n{"t":"done","id":`;

        const { state, damaged } = parseJournal(text);

        expect(state.calls.get("a")?.result).toEqual(result);
        expect(damaged).toBeGreaterThanOrEqual(1);
      }),
    );
  });
});
