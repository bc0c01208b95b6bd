import { z } from "zod";
import { type ExecuteResult, executeResponse } from "../protocol/sandbox-api.ts";
import type { Binding } from "./binding.ts";

/** One line of the journal file, and the state the lines add up to. Pure. */

const result = executeResponse.shape.result.unwrap();

const journalRecord = z.discriminatedUnion("t", [
  z.object({
    t: z.literal("bound"),
    sessionId: z.string(),
    tenant: z.string(),
    hand: z.string(),
    generation: z.int(),
    epoch: z.int(),
  }),
  z.object({
    t: z.literal("started"),
    id: z.string(),
    name: z.string(),
    inputHash: z.string(),
  }),
  /** Without inputHash: cancelled before the call itself arrived. */
  z.object({
    t: z.literal("done"),
    id: z.string(),
    name: z.string(),
    inputHash: z.string().optional(),
    result,
  }),
  z.object({ t: z.literal("acked"), ids: z.array(z.string()) }),
]);
export type JournalRecord = z.output<typeof journalRecord>;

interface RecordedCall {
  id: string;
  name: string;
  inputHash: string | undefined;
  /** Absent: started, and nobody wrote down how it ended. */
  result: ExecuteResult | undefined;
}

export interface JournalState {
  binding: Binding | undefined;
  calls: Map<string, RecordedCall>;
  /** Ids whose result the log holds, oldest first; kept so that such a call is never run again. */
  acked: Set<string>;
}

/** How many acknowledged ids are remembered; a session has far fewer calls in flight at once. */
const REMEMBERED_ACKS = 10_000;

export function emptyState(): JournalState {
  return { binding: undefined, calls: new Map(), acked: new Set() };
}

/** Adds one record to the state, in place. */
export function applyRecord(state: JournalState, record: JournalRecord): void {
  switch (record.t) {
    case "bound": {
      const { t: _, ...binding } = record;
      state.binding = binding;
      break;
    }
    case "started":
    case "done":
      state.calls.set(record.id, {
        id: record.id,
        name: record.name,
        inputHash: record.inputHash,
        result: record.t === "done" ? record.result : undefined,
      });
      break;
    case "acked":
      for (const id of record.ids) {
        // An id that is still running is not over, whatever the caller says.
        if (state.calls.has(id) && state.calls.get(id)?.result === undefined) continue;
        state.calls.delete(id);
        state.acked.add(id);
      }
      for (const id of state.acked) {
        if (state.acked.size <= REMEMBERED_ACKS) break;
        state.acked.delete(id);
      }
      break;
  }
}

/** The fewest records that add up to the same state. */
export function recordsOf(state: JournalState): JournalRecord[] {
  const records: JournalRecord[] = [];
  if (state.binding !== undefined) records.push({ t: "bound", ...state.binding });
  if (state.acked.size > 0) records.push({ t: "acked", ids: [...state.acked] });
  for (const { id, name, inputHash, result: recorded } of state.calls.values()) {
    if (recorded !== undefined) {
      const hash = inputHash === undefined ? {} : { inputHash };
      records.push({ t: "done", id, name, ...hash, result: recorded });
    } else if (inputHash !== undefined) {
      records.push({ t: "started", id, name, inputHash });
    }
  }
  return records;
}

/** State and number of damaged lines of a journal text. The last line may be torn by a crash. */
export function parseJournal(text: string): { state: JournalState; damaged: number } {
  const state = emptyState();
  let damaged = 0;
  for (const line of text.split("\n")) {
    if (line === "") continue;
    const record = parseLine(line);
    if (record === undefined) damaged += 1;
    else applyRecord(state, record);
  }
  return { state, damaged };
}

function parseLine(line: string): JournalRecord | undefined {
  try {
    return journalRecord.safeParse(JSON.parse(line)).data;
  } catch {
    return undefined;
  }
}
