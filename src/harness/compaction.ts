import { LIMITS, type SessionEvent, type SessionEventData } from "../protocol/session-event.ts";
import type { Block, ModelMessage, ModelRequest, ModelTool } from "./model.ts";
import { headAndTail } from "./safe-text.ts";
import { WINDOW_EXCEEDED } from "./stop-reasons.ts";
import { buildTranscript } from "./transcript.ts";

/** Decides when and where history is replaced by a summary. Pure; the log keeps everything. */

interface Window {
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
  return Math.ceil(jsonChars(value) / CHARS_PER_TOKEN);
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
  const kept = tokensAfter(events, upto);
  const to = cuts.find((cut) => kept(cut) + fixedTokens <= room * KEEP) ?? cuts.at(-1);
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

/**
 * The last request's own count plus an estimate of what came since; an estimate of everything when
 * there is none, or when a compaction has made it void.
 */
export function contextTokens(
  events: readonly SessionEvent[],
  upto: number,
  fixedTokens: number,
): number {
  const last = events.findLast(
    (event) =>
      event.seq <= upto &&
      (event.type === "model.request_end" || event.type === "context.compacted"),
  );
  const counted =
    last?.type === "model.request_end" && last.data.partial !== true ? countOf(last.data.usage) : 0;
  if (last !== undefined && counted > 0) return counted + tokensAfter(events, upto)(last.seq);
  const compaction = lastCompaction(events, upto);
  const summary = compaction === undefined ? 0 : estimateTokens(compaction.data.summary);
  return fixedTokens + summary + tokensAfter(events, upto)(compaction?.data.to ?? 0);
}

/** 0 when the endpoint has not said how much it read. */
function countOf(usage: SessionEventData<"model.request_end">["usage"]): number {
  const read =
    usage.input_tokens + usage.cache_creation_input_tokens + usage.cache_read_input_tokens;
  return read === 0 ? 0 : read + usage.output_tokens;
}

/** Estimates what a model is shown of the events after a seq. Each event is measured at most once. */
function tokensAfter(events: readonly SessionEvent[], upto: number): (seq: number) => number {
  const sizes = new Map<SessionEvent, number>();
  const limits = events.flatMap((event) =>
    event.type === "model.request_start" && event.data.result_chars !== undefined
      ? [{ upto: event.data.upto, chars: event.data.result_chars }]
      : [],
  );
  const resultChars = (seq: number) =>
    Math.min(
      LIMITS.toolResultChars,
      ...limits.flatMap((limit) => (limit.upto >= seq && limit.upto <= upto ? [limit.chars] : [])),
    );
  const sizeOf = (event: SessionEvent) => {
    const size = sizes.get(event) ?? shownChars(event, resultChars(event.seq));
    sizes.set(event, size);
    return size;
  };
  return (seq) => {
    const shown = events.filter((event) => event.seq > seq && event.seq <= upto);
    return Math.ceil(shown.reduce((sum, event) => sum + sizeOf(event), 0) / CHARS_PER_TOKEN);
  };
}

/** Brackets, quotes and names around a block. */
const BLOCK_CHARS = 50;

/** JSON characters of what an event adds to the messages. The answer holds what an intent says. */
function shownChars({ type, data }: SessionEvent, resultChars: number): number {
  if (type === "user.message" || type === "system.message") {
    return jsonChars(data.content) + BLOCK_CHARS;
  }
  if (type === "user.custom_tool_result") {
    return Math.min(jsonChars(data.content), resultChars) + 2 * BLOCK_CHARS;
  }
  if (type === "tool.result") {
    return shortenedChars(data.content, resultChars) + 2 * BLOCK_CHARS;
  }
  return type === "model.request_end" ? jsonChars(data.message) + BLOCK_CHARS : 0;
}

function shortenedChars(content: string, limit: number): number {
  return jsonChars(content.length <= limit ? content : content.slice(0, limit));
}

function jsonChars(value: unknown): number {
  return (JSON.stringify(value) ?? "").length;
}

/**
 * Places where a cut separates no call from its result: just before the answer of a request, whose
 * `upto` covers every result of the requests before it and nothing of its own.
 */
function cutPoints(events: readonly SessionEvent[], upto: number): number[] {
  const compactedTo = lastCompaction(events, upto)?.data.to ?? 0;
  // Before the first answer of all there is nothing that a summary could be made of.
  const first =
    compactedTo > 0 ? undefined : events.find((event) => event.type === "model.request_end");
  const starts = new Map(
    events.flatMap((event) =>
      event.type === "model.request_start" ? [[event.data.req, event.data.upto] as const] : [],
    ),
  );
  return events.flatMap((event) => {
    if (event.type !== "model.request_end" || event.seq > upto || event === first) return [];
    const cut = starts.get(event.data.req);
    return cut !== undefined && cut > compactedTo ? [cut] : [];
  });
}

type Compaction = Extract<SessionEvent, { type: "context.compacted" }>;

function lastCompaction(events: readonly SessionEvent[], upto: number): Compaction | undefined {
  const found = events.findLast((event) => event.type === "context.compacted" && event.seq <= upto);
  return found?.type === "context.compacted" ? found : undefined;
}

/** The last summary, where what it replaced stood: it may have been made after events that stay. */
function withSummaryInPlace(events: readonly SessionEvent[]): SessionEvent[] {
  const compaction = lastCompaction(events, Number.POSITIVE_INFINITY);
  const others = events.filter(({ type }) => type !== "context.compacted");
  return compaction === undefined
    ? others
    : [{ ...compaction, seq: compaction.data.to }, ...others];
}

const INSTRUCTION =
  "Summarise the conversation so far for yourself: it will be replaced by your summary. " +
  "Keep the task and every instruction that still holds, decisions and why they were taken, " +
  "the state of files and other work, what was tried and failed, names and values that are still needed, " +
  "and what remains to be done. Answer with the summary only and call no tool.";

/** Longest summary in the log, whatever the model answers: an event has a limit. */
const SUMMARY_CHARS = 60_000;

/** What the model answered, as a summary; empty when it said nothing. */
export function summaryOf(content: readonly Block[]): string {
  const texts = content.map(({ type, text }) =>
    type === "text" && typeof text === "string" ? text : "",
  );
  return headAndTail(texts.join("\n").trim().toWellFormed(), SUMMARY_CHARS);
}

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
  const seen = withSummaryInPlace(events);
  const fits = estimateTokens(buildTranscript(seen, to)) <= free;
  const chars = fits ? undefined : (charsToFit(seen, to, free) ?? MIN_RESULT_CHARS);
  const messages: ModelMessage[] = buildTranscript(seen, to, chars).map((message, index, all) =>
    index === all.length - 1
      ? { ...message, content: [...message.content, { type: "text", text: INSTRUCTION }] }
      : message,
  );
  return { ...base, maxTokens: Math.min(base.maxTokens, SUMMARY_TOKENS), messages };
}
