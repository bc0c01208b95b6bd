import type { NewSessionEvent, SessionEventData } from "../protocol/session-event.ts";
import { hasCode } from "../runtime/errors.ts";
import { estimateTokens, planCompaction, summaryOf, summaryRequest } from "./compaction.ts";
import { DeltaPublisher } from "./delta-publisher.ts";
import {
  type Block,
  isModelError,
  type Model,
  type ModelAnswer,
  ModelError,
  type ModelErrorKind,
  type ModelRequest,
} from "./model.ts";
import * as texts from "./outcome-texts.ts";
import { recordedAnswer } from "./recorded-answer.ts";
import { newEvent, type RunContext, resultEvent } from "./run-context.ts";
import { eventText, headAndTail } from "./safe-text.ts";
import { type SessionState, sandboxesAt } from "./session-state.ts";
import { isUnfinished, MAX_CONTINUATIONS } from "./stop-reasons.ts";
import type { SessionTokens } from "./tokens.ts";
import type { ToolCatalog } from "./tools.ts";
import { buildTranscript } from "./transcript.ts";

export interface TurnDeps extends RunContext {
  model: Model;
  tokens: SessionTokens;
}

/** How one model request ended; the log already says so. */
export type RequestEnd =
  | { kind: "answered"; committed: boolean }
  /** By the user, or because the session is to stop. */
  | { kind: "interrupted" }
  /** Time to finish was up. */
  | { kind: "broken_off" }
  | { kind: "failed"; error: ModelError };

/** `shrink`: the next request fits when each tool result has at most so many characters. */
export type CompactionEnd =
  | { kind: "not_needed" | "compacted" | "stuck" }
  | { kind: "shrink"; resultChars: number }
  | { kind: "failed"; error: ModelError };

/** How large the next request may be. */
export interface Fit {
  /** The API has refused the request as too long: estimates are wrong. */
  forced: boolean;
  /** So often in a row. */
  refusals: number;
}

/** Asks the model once: request_start, stream, and the answer with its tool intents as one batch. */
export async function askModel(
  deps: TurnDeps,
  catalog: ToolCatalog,
  resultChars?: number,
): Promise<RequestEnd> {
  const { journal, rng, snapshot } = deps;
  const upto = journal.state.seq;
  const request = requestOf(deps, catalog, upto, resultChars);
  const req = rng.id("req");
  const start = newEvent(rng, "model.request_start", {
    req,
    upto,
    model: snapshot.agent.model,
    ...(resultChars === undefined ? {} : { result_chars: resultChars }),
  });
  if (journal.state.lastEnd === undefined && journal.state.attemptedUpto === 0) observeStart(deps);
  await journal.append([start]);
  const eventId = rng.id("sevt");
  const preview = new DeltaPublisher({ lease: deps.lease, clock: deps.clock, eventId });
  const interrupt = interruptSignal(deps, upto);
  try {
    const signal = AbortSignal.any([interrupt.signal, deps.signals.hard, deps.signals.dead]);
    const answer = await streamAnswer(deps, request, preview, signal);
    preview.flush();
    return await recordAnswer(deps, catalog, { req, eventId, answer });
  } catch (error) {
    deps.signals.dead.throwIfAborted();
    if (interrupt.signal.aborted) return await recordInterrupt(deps, { req, eventId, preview });
    if (deps.signals.hard.aborted) {
      await journal.append([
        newEvent(rng, "model.request_abandoned", { req, reason: "handed_over" }),
      ]);
      return { kind: "broken_off" };
    }
    if (!isModelError(error)) throw error;
    deps.logger.debug({ reason: error.kind }, "model request failed");
    await journal.append([newEvent(rng, "model.request_abandoned", { req, reason: error.kind })]);
    return { kind: "failed", error };
  } finally {
    interrupt.close();
  }
}

function requestOf(
  deps: TurnDeps,
  catalog: ToolCatalog,
  upto: number,
  resultChars: number | undefined,
): ModelRequest {
  const { agent } = deps.snapshot;
  return {
    model: agent.model,
    maxTokens: agent.maxOutputTokens,
    system: agent.system,
    tools: catalog.declarations(),
    messages: buildTranscript(deps.journal.state.events, upto, resultChars),
  };
}

async function streamAnswer(
  deps: TurnDeps,
  request: ModelRequest,
  preview: DeltaPublisher,
  signal: AbortSignal,
): Promise<ModelAnswer> {
  const { clock, metrics } = deps;
  const started = clock.monotonic();
  let first = true;
  metrics.modelInflight.inc();
  try {
    const answer = await deps.model.stream(request, {
      sessionToken: await sessionToken(deps),
      signal,
      onText: (text) => {
        if (first) metrics.modelFirstChunk.observe((clock.monotonic() - started) / 1000);
        first = false;
        preview.push(text);
      },
    });
    metrics.modelRequests.inc({ outcome: "ok", error_type: "" });
    countTokens(deps, answer);
    return answer;
  } catch (error) {
    if (isModelError(error)) {
      metrics.modelRequests.inc({ outcome: "error", error_type: error.kind });
      if (error.kind === "unauthorized") deps.tokens.invalidate();
    } else if (signal.aborted) {
      metrics.modelRequests.inc({ outcome: "interrupted", error_type: "" });
    }
    throw error;
  } finally {
    metrics.modelInflight.dec();
    metrics.modelDuration.observe((clock.monotonic() - started) / 1000);
  }
}

/** Without a token no request can be made: to the turn that is one more way to fail to reach the model. */
async function sessionToken(deps: TurnDeps): Promise<string> {
  try {
    return await deps.tokens.session();
  } catch (error) {
    if (hasCode(error, "SESSION_LEASE_LOST")) throw error;
    const kind: ModelErrorKind =
      hasCode(error, "FORBIDDEN") || hasCode(error, "UNAUTHENTICATED")
        ? "unauthorized"
        : "connection";
    throw new ModelError(kind, Error.isError(error) ? error.message : "no session token");
  }
}

/** A refusal names the session's tools, and an answer may hold many calls that are refused. */
const REFUSAL_CHARS = 1500;

async function recordAnswer(
  deps: TurnDeps,
  catalog: ToolCatalog,
  end: { req: string; eventId: string; answer: ModelAnswer },
): Promise<RequestEnd> {
  const { rng, journal } = deps;
  const { maxOutputTokens } = deps.snapshot.agent;
  const { content, stopReason, notMade } = recordedAnswer(end.answer, {
    isTaken: callIdTaken(journal.state),
    newId: () => rng.id("toolu"),
    maxOutputTokens,
  });
  const data = {
    req: end.req,
    message: content,
    stop_reason: stopReason,
    usage: end.answer.usage,
  };
  const events: NewSessionEvent[] = [newEvent(rng, "model.request_end", data, end.eventId)];
  let sideEffects = false;
  for (const block of content.filter(isToolUse)) {
    const { intent, refusal } = catalog.intentOf(block);
    const why = notMade.get(intent.id);
    events.push(newEvent(rng, "tool.intent", intent));
    if (why !== undefined) events.push(resultEvent(rng, intent.id, texts.knownError(why)));
    else if (refusal !== undefined)
      events.push(
        resultEvent(rng, intent.id, {
          content: headAndTail(refusal, REFUSAL_CHARS),
          isError: true,
          outcome: "denied",
        }),
      );
    else sideEffects ||= intent.target !== "harness";
  }
  const isOneTooMany = journal.state.unfinishedEnds >= MAX_CONTINUATIONS;
  if (isUnfinished(stopReason) && isOneTooMany) events.push(unfinishedError(deps));
  await journal.append(events, { durability: sideEffects ? "committed" : "applied" });
  return { kind: "answered", committed: sideEffects };
}

/** What a compaction has replaced is not all in memory: whatever id comes after it may have been used. */
function callIdTaken({ calls, events }: SessionState): (id: string) => boolean {
  const isCompacted = events.some(({ type }) => type === "context.compacted");
  return (id) => isCompacted || calls.has(id);
}

function unfinishedError({ rng, snapshot }: TurnDeps): NewSessionEvent {
  return newEvent(rng, "session.error", {
    type: "model_request_failed_error",
    message: `the model's answer was cut off ${MAX_CONTINUATIONS + 1} times in a row, with a limit of ${snapshot.agent.maxOutputTokens} output tokens; the turn ends here. Raise maxOutputTokens of the agent, or ask for smaller steps`,
    retry_status: "exhausted",
  });
}

/** The user saw the text, so it stays; calls that were not complete never existed. */
async function recordInterrupt(
  deps: TurnDeps,
  end: { req: string; eventId: string; preview: DeltaPublisher },
): Promise<RequestEnd> {
  end.preview.flush();
  const { text } = end.preview;
  const message = text === "" ? [] : [{ type: "text", text: eventText(text) }];
  const data: SessionEventData<"model.request_end"> = {
    req: end.req,
    message,
    stop_reason: "interrupted",
    usage: NO_USAGE,
    partial: true,
  };
  await deps.journal.append([newEvent(deps.rng, "model.request_end", data, end.eventId)]);
  return { kind: "interrupted" };
}

/** A broken-off stream has not said what it cost. */
const NO_USAGE = {
  input_tokens: 0,
  output_tokens: 0,
  cache_creation_input_tokens: 0,
  cache_read_input_tokens: 0,
};

/** Aborts when an interrupt or a stop arrives that the request has not seen. */
function interruptSignal(deps: TurnDeps, upto: number): { signal: AbortSignal; close: () => void } {
  const controller = new AbortController();
  const { journal } = deps;
  const check = () => {
    if (journal.state.interruptSeq > upto || journal.state.stop !== undefined) controller.abort();
  };
  const close = journal.onChange(check);
  check();
  return { signal: controller.signal, close };
}

function isToolUse(block: Block): boolean {
  return block.type === "tool_use";
}

function countTokens(deps: TurnDeps, { usage }: ModelAnswer): void {
  const counts = {
    input: usage.input_tokens,
    output: usage.output_tokens,
    cache_read: usage.cache_read_input_tokens,
    cache_write: usage.cache_creation_input_tokens,
  };
  for (const [type, tokens] of Object.entries(counts)) {
    deps.metrics.modelTokens.inc({ type }, tokens);
  }
}

function observeStart(deps: TurnDeps): void {
  const ms = Math.max(0, deps.clock.now() - deps.journal.state.createdAt);
  deps.metrics.sessionStart.observe(ms / 1000);
}

/**
 * Replaces a prefix of the context by a summary when the next request would come near the window.
 * The log keeps everything.
 */
export async function compactIfNeeded(
  deps: TurnDeps,
  catalog: ToolCatalog,
  fit: Fit,
): Promise<CompactionEnd> {
  const { journal, rng, snapshot, signals } = deps;
  const { agent } = snapshot;
  const upto = journal.state.seq;
  const tools = catalog.declarations();
  const plan = planCompaction({
    events: journal.state.events,
    upto,
    fixedTokens: estimateTokens(tools) + estimateTokens(agent.system ?? ""),
    window: { contextTokens: agent.contextWindowTokens, maxOutputTokens: agent.maxOutputTokens },
    forced: fit.forced,
  });
  if (plan.kind === "none") return { kind: "not_needed" };
  if (plan.kind !== "compact") return plan;
  const base = {
    model: agent.model,
    maxTokens: agent.maxOutputTokens,
    system: agent.system,
    tools,
  };
  const room = Math.floor((agent.contextWindowTokens - agent.maxOutputTokens) / 2 ** fit.refusals);
  const request = summaryRequest(journal.state.events, plan.to, base, room);
  const interrupt = interruptSignal(deps, upto);
  const unseen = new DeltaPublisher({
    lease: { publishDelta: () => {} },
    clock: deps.clock,
    eventId: "",
  });
  try {
    const signal = AbortSignal.any([interrupt.signal, signals.hard, signals.dead]);
    const answer = await streamAnswer(deps, request, unseen, signal);
    const summary = summaryOf(answer.content);
    if (summary === "") {
      const error = new ModelError("malformed", "the model answered without a summary");
      return { kind: "failed", error };
    }
    const { to } = plan;
    const sandboxes = sandboxesAt(journal.state, to);
    await journal.append([newEvent(rng, "context.compacted", { from: 1, to, summary, sandboxes })]);
    return { kind: "compacted" };
  } catch (error) {
    signals.dead.throwIfAborted();
    // The loop looks at the log again and finds why.
    if (interrupt.signal.aborted || signals.hard.aborted) return { kind: "not_needed" };
    if (isModelError(error)) return { kind: "failed", error };
    throw error;
  } finally {
    interrupt.close();
  }
}
