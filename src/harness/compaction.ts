import { LIMITS, type SessionEvent } from "../protocol/session-event.ts";
import type { ModelMessage, ModelRequest, ModelTool } from "./model.ts";
import { WINDOW_EXCEEDED } from "./stop-reasons.ts";
import { buildTranscript } from "./transcript.ts";

/** Decides when and where history is replaced by a summary. Pure; the log keeps everything. */

export interface Window {
  contextTokens: number;
  maxOutputTokens: number;
}

/** Share of the room for input at which history is compacted, and that the kept part may fill. */
const COMPACT_AT = 0.8;
const KEEP = 0.3;
/** JSON characters in a token; low, so that the estimate errs on the safe side. */
const CHARS_PER_TOKEN = 3.5;
/** Share of the room that a request may fill whose results are cut. */
const SHRINK_TO = 0.7;
/** Results of fewer characters tell a model nothing. */
const MIN_RESULT_CHARS = 500;
/** Longest summary, in tokens. */
const SUMMARY_TOKENS = 4096;

export type CompactionPlan =
  | { kind: "none" }
  /** Events up to `to` are to be replaced. */
  | { kind: "compact"; to: number }
  /** Nothing is left that could be replaced; with results of at most so many characters it fits. */
  | { kind: "shrink"; resultChars: number }
  /** Too large, and nothing is left that could be replaced. */
  | { kind: "stuck" };

export function estimateTokens(value: unknown): number {
  return Math.ceil((JSON.stringify(value) ?? "").length / CHARS_PER_TOKEN);
}

export interface CompactionInput {
  events: readonly SessionEvent[];
  /** What the next request would see. */
  upto: number;
  /** Tokens of tools and system prompt. */
  fixedTokens: number;
  window: Window;
  /** The API has refused the request as too long: estimates are wrong. */
  forced: boolean;
}

export function planCompaction(input: CompactionInput): CompactionPlan {
  const { events, upto, window, fixedTokens } = input;
  const room = window.contextTokens - window.maxOutputTokens;
  const forced = input.forced || endedAtWindow(events, upto);
  const size = contextTokens(events, upto, fixedTokens);
  if (!forced && size <= room * COMPACT_AT) return { kind: "none" };
  const cuts = cutPoints(events, upto);
  const kept = (to: number) =>
    estimateTokens(buildTranscript(eventsAfter(events, to), upto)) + fixedTokens;
  const to = cuts.find((cut) => kept(cut) <= room * KEEP) ?? cuts.at(-1);
  if (to !== undefined) return { kind: "compact", to };
  if (!forced && size <= room) return { kind: "none" };
  // What was refused fits by the estimate, so the estimate is no measure: half of it is.
  const whole = estimateTokens(buildTranscript(events, upto));
  const free = room * SHRINK_TO - fixedTokens;
  const resultChars = charsToFit(events, upto, forced ? Math.min(free, whole / 2) : free);
  if (resultChars !== undefined) return { kind: "shrink", resultChars };
  return input.forced || size > room ? { kind: "stuck" } : { kind: "none" };
}

/** The largest limit for tool results with which the messages have at most `tokens`. */
function charsToFit(
  events: readonly SessionEvent[],
  upto: number,
  tokens: number,
): number | undefined {
  let chars: number = LIMITS.toolResultChars / 2;
  for (; chars >= MIN_RESULT_CHARS; chars = Math.floor(chars / 2)) {
    if (estimateTokens(buildTranscript(events, upto, chars)) <= tokens) return chars;
  }
  return undefined;
}

/** The last answer broke off because the window was full, and nothing has been done about it since. */
function endedAtWindow(events: readonly SessionEvent[], upto: number): boolean {
  const last = events.findLast(
    ({ seq, type }) =>
      seq <= upto && (type === "model.request_end" || type === "context.compacted"),
  );
  return last?.type === "model.request_end" && last.data.stop_reason === WINDOW_EXCEEDED;
}

/** The answer itself holds what an intent says, and was counted. */
const UNSHOWN = new Set<SessionEvent["type"]>(["tool.intent", "tool.started"]);

/**
 * The last request's own count plus an estimate of what came since; an estimate of everything when
 * there is none, or when a compaction has made it void.
 */
export function contextTokens(
  events: readonly SessionEvent[],
  upto: number,
  fixedTokens: number,
): number {
  const visible = events.filter((event) => event.seq <= upto);
  const whole = estimateTokens(buildTranscript(events, upto)) + fixedTokens;
  const last = visible.findLast(
    (event) => event.type === "model.request_end" || event.type === "context.compacted",
  );
  if (last?.type !== "model.request_end" || last.data.partial === true) return whole;
  const { usage } = last.data;
  const read =
    usage.input_tokens + usage.cache_creation_input_tokens + usage.cache_read_input_tokens;
  // The endpoint has not said how much it read.
  if (read === 0) return whole;
  const counted = read + usage.output_tokens;
  const since = visible.filter((event) => event.seq > last.seq && !UNSHOWN.has(event.type));
  return counted + estimateTokens(since.map((event) => event.data));
}

/**
 * Places where a cut separates no call from its result: just before the answer of a request, whose
 * `upto` covers every result of the requests before it and nothing of its own.
 */
function cutPoints(events: readonly SessionEvent[], upto: number): number[] {
  const compactedTo = events.reduce(
    (to, event) =>
      event.type === "context.compacted" && event.seq <= upto ? Math.max(to, event.data.to) : to,
    0,
  );
  const starts = new Map(
    events.flatMap((event) =>
      event.type === "model.request_start" ? [[event.data.req, event.data.upto] as const] : [],
    ),
  );
  const first = events.find((event) => event.type === "model.request_end");
  return events.flatMap((event) => {
    if (event.type !== "model.request_end" || event.seq > upto || event === first) return [];
    const cut = starts.get(event.data.req);
    return cut !== undefined && cut > compactedTo ? [cut] : [];
  });
}

function eventsAfter(events: readonly SessionEvent[], to: number): SessionEvent[] {
  return events.filter((event) => event.seq > to || event.type === "model.request_start");
}

const INSTRUCTION =
  "Summarise the conversation so far for yourself: it will be replaced by your summary. " +
  "Keep the task and every instruction that still holds, decisions and why they were taken, " +
  "the state of files and other work, what was tried and failed, names and values that are still needed, " +
  "and what remains to be done. Answer with the summary only and call no tool.";

/**
 * The request for a summary of the events up to `to`: the same prefix as always, so it is cached. When
 * it has more than `room` tokens, the results in it are cut.
 */
export function summaryRequest(
  events: readonly SessionEvent[],
  to: number,
  base: {
    model: string;
    maxTokens: number;
    system: string | undefined;
    tools: readonly ModelTool[];
  },
  room: number,
): ModelRequest {
  const free = room - estimateTokens(base.tools) - estimateTokens(base.system ?? "");
  const fits = estimateTokens(buildTranscript(events, to)) <= free;
  const chars = fits ? undefined : (charsToFit(events, to, free) ?? MIN_RESULT_CHARS);
  const messages: ModelMessage[] = buildTranscript(events, to, chars).map((message, index, all) =>
    index === all.length - 1
      ? { ...message, content: [...message.content, { type: "text", text: INSTRUCTION }] }
      : message,
  );
  return { ...base, maxTokens: Math.min(base.maxTokens, SUMMARY_TOKENS), messages };
}
