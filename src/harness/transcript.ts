import type { SessionEvent } from "../protocol/session-event.ts";
import type { Block, ModelMessage } from "./model.ts";
import { headAndTail, NO_OUTPUT, toolText, wellFormed } from "./safe-text.ts";
import { isCut } from "./stop-reasons.ts";

/**
 * The messages a model is sent: a pure fold of the events with seq ≤ upto, equal on every worker.
 * Whatever the log holds, the result is valid: it starts and ends with a user message, every
 * tool_use has exactly one result, first in the next user message, and no text is blank.
 *
 * Model order is not log order: a message that arrived while a request was running is not part of
 * what that request saw, so it follows the request's answer.
 *
 * `resultChars`: of a request whose start is not in the log yet, see `result_chars` there.
 */
export function buildTranscript(
  events: readonly SessionEvent[],
  upto: number,
  resultChars = Number.POSITIVE_INFINITY,
): ModelMessage[] {
  const visible = events.filter((event) => event.seq <= upto);
  const compaction = visible.findLast((event) => event.type === "context.compacted");
  const from = compaction?.type === "context.compacted" ? compaction.data.to : 0;
  const transcript = new Transcript();
  if (compaction?.type === "context.compacted")
    transcript.say(summaryText(compaction.data.summary));
  const kept = visible.filter((event) => event.seq > from);
  const uptoOf = new Map(
    events.flatMap((event) =>
      event.type === "model.request_start" ? [[event.data.req, event.data.upto] as const] : [],
    ),
  );
  const results = shortened(resultsOf(visible), [
    { upto, chars: resultChars },
    ...events.flatMap((event) =>
      event.type === "model.request_start" && event.data.upto <= upto
        ? [{ upto: event.data.upto, chars: event.data.result_chars ?? Number.POSITIVE_INFINITY }]
        : [],
    ),
  ]);
  const inputs = kept.filter(isInput);
  for (const event of kept) {
    if (event.type !== "model.request_end") continue;
    const seen = uptoOf.get(event.data.req) ?? event.seq;
    while (inputs[0] !== undefined && inputs[0].seq <= seen) transcript.input(inputs.shift());
    transcript.answer(event.data.message, results);
    const { message, stop_reason: stopReason } = event.data;
    if (isCut(stopReason) && !message.some(isToolUse)) transcript.say(CUT_OFF);
  }
  for (const input of inputs) transcript.input(input);
  return transcript.finish();
}

type InputEvent = Extract<SessionEvent, { type: "user.message" | "system.message" }>;

function isInput(event: SessionEvent): event is InputEvent {
  return event.type === "user.message" || event.type === "system.message";
}

function summaryText(summary: string): string {
  return `The conversation before this point has been replaced by a summary; the session's log still holds all of it.\n\n${summary}`;
}

const CUT_OFF =
  "(Your answer was cut off here: it reached its length limit. Go on exactly where it stopped.)";

interface ResultText {
  content: string;
  isError: boolean;
  seq: number;
}

/** The smallest limit of a request that saw the result, so that it looks the same from then on. */
function shortened(
  results: ReadonlyMap<string, ResultText>,
  limits: readonly { upto: number; chars: number }[],
): Map<string, ResultText> {
  const finite = limits.filter(({ chars }) => chars !== Number.POSITIVE_INFINITY);
  return new Map(
    [...results].map(([id, result]) => {
      const chars = Math.min(...finite.flatMap((l) => (l.upto >= result.seq ? [l.chars] : [])));
      if (result.content.length <= chars) return [id, result];
      return [id, { ...result, content: SHORTENED + headAndTail(result.content, chars) }];
    }),
  );
}

const SHORTENED =
  "[This result is shortened: with all of it the request does not fit the model's context window. " +
  "Ask for smaller parts where you need what is left out.]\n";

/** By the model's id; the first result stands. */
function resultsOf(events: readonly SessionEvent[]): Map<string, ResultText> {
  const results = new Map<string, ResultText>();
  const ids = new Map<string, string>();
  for (const event of events) {
    if (event.type === "tool.intent") {
      ids.set(event.id, event.data.id);
    } else if (event.type === "tool.result") {
      const { id, content, is_error: isError } = event.data;
      if (!results.has(id)) results.set(id, { content, isError, seq: event.seq });
    } else if (event.type === "user.custom_tool_result") {
      const named = event.data.custom_tool_use_id;
      const id = ids.get(named) ?? named;
      const content = event.data.content.map((block) => block.text).join("\n");
      const isError = event.data.is_error ?? false;
      if (!results.has(id)) results.set(id, { content, isError, seq: event.seq });
    }
  }
  return results;
}

class Transcript {
  readonly #messages: ModelMessage[] = [];

  input(event: InputEvent | undefined): void {
    for (const { text } of event?.data.content ?? []) {
      this.say(event?.type === "system.message" ? `<system>\n${text}\n</system>` : text);
    }
  }

  say(text: string): void {
    const safe = text.toWellFormed();
    this.#user({ type: "text", text: safe.trim() === "" ? "(empty message)" : safe });
  }

  /** An answer without anything to show again leaves no message, so that its neighbours are joined. */
  answer(blocks: readonly Block[], results: ReadonlyMap<string, ResultText>): void {
    const content = blocks
      .filter((block) => KNOWN_BLOCKS.has(block.type) && !isBlankText(block))
      .map((block) => wellFormed(block));
    while (isThinking(content.at(-1))) content.pop();
    if (content.length === 0) return;
    if (this.#messages.length === 0) this.say("(the conversation starts here)");
    const last = this.#messages.at(-1);
    if (last?.role === "assistant") last.content.push(...content);
    else this.#messages.push({ role: "assistant", content });
    for (const block of content) {
      if (isToolUse(block)) this.#user(resultBlock(String(block["id"]), results));
    }
  }

  finish(): ModelMessage[] {
    if (this.#messages.at(-1)?.role !== "user") this.say("(continue)");
    return this.#messages;
  }

  #user(block: Block): void {
    const last = this.#messages.at(-1);
    if (last?.role === "user") last.content.push(block);
    else this.#messages.push({ role: "user", content: [block] });
  }
}

/** Whatever else a model may say in time to come stays in the log: half understood, it makes a request invalid. */
const KNOWN_BLOCKS = new Set(["text", "thinking", "redacted_thinking", "tool_use"]);

function isToolUse({ type }: Block): boolean {
  return type === "tool_use";
}

function resultBlock(id: string, results: ReadonlyMap<string, ResultText>): Block {
  const result: Omit<ResultText, "seq"> = results.get(id) ?? {
    content: "This call was never finished; nothing is known about its effect.",
    isError: true,
  };
  const content = result.content === "" ? NO_OUTPUT : toolText(result.content);
  return {
    type: "tool_result",
    tool_use_id: id,
    content,
    ...(result.isError ? { is_error: true } : {}),
  };
}

function isBlankText(block: Block): boolean {
  const { type, text } = block;
  return type === "text" && (typeof text !== "string" || text.trim() === "");
}

/** The API refuses an assistant message that ends with thinking. */
function isThinking(block: Block | undefined): boolean {
  return block?.type === "thinking" || block?.type === "redacted_thinking";
}

/**
 * Cache breakpoints on the last two user messages: the next request finds the longest prefix again,
 * and one that differs in its last message still finds the one before.
 */
export function withCacheBreakpoints(messages: readonly ModelMessage[]): ModelMessage[] {
  const users = messages.flatMap((message, index) => (message.role === "user" ? [index] : []));
  const marked = new Set(users.slice(-2));
  return messages.map((message, index) => {
    const last = message.content.at(-1);
    if (!marked.has(index) || last === undefined) return message;
    const block = { ...last, cache_control: { type: "ephemeral" } };
    return { ...message, content: [...message.content.slice(0, -1), block] };
  });
}
