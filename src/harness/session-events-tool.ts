import { z } from "zod";
import { withPlainNumbers } from "../protocol/exact-json.ts";
import type { SessionEvent } from "../protocol/session-event.ts";
import type { ModelTool } from "./model.ts";
import { headAndTail } from "./safe-text.ts";

/** By this tool a model reads slices of its own log, also of what a compaction has taken from its context. */
export const SESSION_EVENTS_TOOL = "session_events";

const DEFAULT_LIMIT = 20;
const MAX_LIMIT = 100;
/** Long results are shortened here so that one slice does not fill the context again. */
const TEXT_CHARS = 2000;

const input = z.strictObject({
  after: z.int().min(0).optional(),
  before: z.int().min(1).optional(),
  limit: z.int().min(1).max(MAX_LIMIT).optional(),
});

export const sessionEventsDeclaration: ModelTool = {
  name: SESSION_EVENTS_TOOL,
  description:
    "Read a slice of this session's own event log: messages, your earlier answers, tool calls and results, " +
    "including what has been summarised away. Events are numbered from 1. Without `after` the newest are given. " +
    `Long texts are shortened.`,
  input_schema: {
    type: "object",
    properties: {
      after: { type: "integer", description: "Only events with a greater number; oldest first." },
      before: { type: "integer", description: "Only events with a smaller number." },
      limit: {
        type: "integer",
        description: `At most this many; ${DEFAULT_LIMIT} if absent, ${MAX_LIMIT} at most.`,
      },
    },
    additionalProperties: false,
  },
};

/** The session's events between exclusive bounds, in order or reversed. */
export type History = (query: {
  after?: number;
  before?: number;
  reverse: boolean;
}) => AsyncIterable<SessionEvent>;

export async function readSessionEvents(
  history: History,
  rawInput: unknown,
): Promise<{ content: string; isError: boolean }> {
  const parsed = input.safeParse(withPlainNumbers(rawInput));
  if (!parsed.success) {
    return { content: `Invalid input. ${z.prettifyError(parsed.error)}`, isError: true };
  }
  const { after, before, limit = DEFAULT_LIMIT } = parsed.data;
  const reverse = after === undefined;
  const bounds = {
    ...(after === undefined ? {} : { after }),
    ...(before === undefined ? {} : { before }),
  };
  const lines: string[] = [];
  for await (const event of history({ ...bounds, reverse })) {
    if (isTelling(event)) lines.push(line(event));
    if (lines.length === limit) break;
  }
  if (lines.length === 0) return { content: "No events in this range.", isError: false };
  return { content: (reverse ? lines.toReversed() : lines).join("\n"), isError: false };
}

const MACHINERY = new Set<SessionEvent["type"]>([
  "model.request_start",
  "tool.intent",
  "tool.started",
]);

/** What the model itself took part in; the machinery between is noise to it. */
function isTelling({ type }: SessionEvent): boolean {
  return !type.startsWith("sandbox.") && !MACHINERY.has(type);
}

function line(event: SessionEvent): string {
  const time = new Date(event.ts).toISOString();
  return `${event.seq} ${time} ${event.type} ${headAndTail(JSON.stringify(event.data), TEXT_CHARS)}`;
}
