import { createHash } from "node:crypto";
import { type ContentBlock, joinMessages, type Message, type MessagesRequest } from "./request.ts";
import type { Branch, Match, Scenario, ScriptedTool, Turn } from "./script.ts";
import { estimateTokens, type Usage, usageOf } from "./usage.ts";

export interface Answer {
  kind: "answer";
  /** Number (from 0) of the turn taken; -1 for a summary. */
  turn: number;
  id: string;
  content: ContentBlock[];
  stopReason: string;
  usage: Usage;
  delayMs: number;
  /** Undefined: as fast as it goes. */
  tokensPerSecond: number | undefined;
}

/** The request is not one the script foresees. */
export interface Mismatch {
  kind: "mismatch";
  scenario: string;
  turn: number;
  expected: string;
  got: string;
}

/**
 * A request whose last text asks for this is one for a summary. Its answer ends with a marker that
 * says how far the script is, so that the replay goes on from there when the summary has taken the
 * place of the conversation.
 */
const SUMMARY_REQUEST = /summari[sz]e the conversation so far/i;
const MARKER = /\[script position (\d+)\]/g;

/** Pure: the same scenario and request give the same answer, ids included. */
export function answerRequest(
  name: string,
  scenario: Scenario,
  request: MessagesRequest,
): Answer | Mismatch {
  const messages = joinMessages(request.messages);
  const last = messages.at(-1)?.content ?? [];
  const place = replay(scenario, messages.slice(0, -1), last);
  if (SUMMARY_REQUEST.test(lastText(last))) {
    return summaryAnswer(scenario, request, place);
  }
  const entry = scenario.turns[place];
  const mismatch = (expected: string): Mismatch => ({
    kind: "mismatch",
    scenario: name,
    turn: place,
    expected,
    got: excerpt(textOf(last)),
  });
  if (entry === undefined) return mismatch(`no request: the script has ${place} turns`);
  if (entry.expect !== undefined && !holds(entry.expect, last)) {
    return mismatch(`a last message with ${JSON.stringify(entry.expect)}`);
  }
  const taken = choose(entry, last);
  if (taken === undefined) return mismatch("one of the turn's branches to match");
  const offered = new Set((request.tools ?? []).map((tool) => tool.name));
  const missing = (taken.tools ?? []).find(
    (tool) => tool.unoffered !== true && !offered.has(tool.name),
  );
  if (missing !== undefined) {
    const names = [...offered].join(", ") || "none";
    return { ...mismatch(`the tool "${missing.name}" to be offered`), got: `tools: ${names}` };
  }
  return buildAnswer(scenario, request, taken, place);
}

/** Where the script stands: one step for each assistant message since the last summary. */
function replay(scenario: Scenario, before: Message[], last: ContentBlock[]): number {
  const all = [...before, { role: "user" as const, content: last }];
  let place = 0;
  let input: ContentBlock[] = [];
  for (const { role, content } of all) {
    if (role === "user") {
      const marker = [...textOf(content).matchAll(MARKER)].at(-1)?.[1];
      if (marker !== undefined) place = Number(marker);
      input = content;
    } else {
      const entry = scenario.turns[place];
      const target = entry === undefined ? undefined : (choose(entry, input) ?? entry).then;
      place =
        target === undefined
          ? place + 1
          : scenario.turns.findIndex((candidate) => candidate.name === target);
    }
  }
  return place;
}

/** The first branch that holds, else the turn itself if it has an answer of its own. */
function choose(entry: Turn, content: ContentBlock[]): Turn | Branch | undefined {
  const taken = entry.branches?.find((option) => holds(option.when, content));
  if (taken !== undefined) return taken;
  const hasAnswer =
    entry.say !== undefined ||
    entry.think !== undefined ||
    entry.tools !== undefined ||
    entry.stopReason !== undefined;
  return hasAnswer || entry.branches === undefined ? entry : undefined;
}

function holds(condition: Match, content: ContentBlock[]): boolean {
  const text = textOf(content);
  const results = content.filter((block) => block.type === "tool_result");
  const failed = results.some((block) => block.is_error === true);
  return (
    [condition.contains ?? []].flat().every((part) => text.includes(part)) &&
    (condition.matches === undefined || RegExp(condition.matches, "su").test(text)) &&
    (condition.isError === undefined || condition.isError === failed) &&
    (condition.results === undefined || condition.results === results.length)
  );
}

function buildAnswer(
  scenario: Scenario,
  request: MessagesRequest,
  taken: Turn | Branch,
  place: number,
): Answer {
  const seed = createHash("sha256")
    .update(JSON.stringify([request.model, place, bare(request.messages)]))
    .digest("hex");
  const content: ContentBlock[] = [
    ...(taken.think === undefined ? [] : [thinkingBlock(taken.think)]),
    ...(taken.say === undefined
      ? []
      : [{ type: "text" as const, text: taken.say.repeat(taken.repeat ?? 1) }]),
    ...(taken.tools ?? []).map((tool, index) => toolBlock(tool, seed, index)),
  ];
  const called = (taken.tools ?? []).length > 0;
  return {
    kind: "answer",
    turn: place,
    id: `msg_${seed.slice(0, 24)}`,
    content,
    stopReason: taken.stopReason ?? (called ? "tool_use" : "end_turn"),
    usage: usageOf(request, estimateTokens(content)),
    delayMs: taken.delayMs ?? 0,
    tokensPerSecond: taken.tokensPerSecond ?? scenario.tokensPerSecond,
  };
}

function summaryAnswer(scenario: Scenario, request: MessagesRequest, place: number): Answer {
  const say = `${scenario.summary}\n[script position ${place}]`;
  return { ...buildAnswer(scenario, request, { say }, place), turn: -1 };
}

function thinkingBlock(thinking: string): ContentBlock {
  const signature = createHash("sha256").update(thinking).digest("base64");
  return { type: "thinking", thinking, signature };
}

function toolBlock(tool: ScriptedTool, seed: string, index: number): ContentBlock {
  const id = createHash("sha256").update(`${seed}:${index}`).digest("hex").slice(0, 24);
  return { type: "tool_use", id: `toolu_${id}`, name: tool.name, input: tool.input };
}

/** Breakpoints move from request to request and must not change the answer. */
function bare(messages: MessagesRequest["messages"]): unknown {
  return JSON.parse(
    JSON.stringify(messages, (key, value: unknown) =>
      key === "cache_control" ? undefined : value,
    ),
  );
}

/** Text blocks and tool results of a message, one after the other. */
export function textOf(content: ContentBlock[]): string {
  return content
    .flatMap((block) => {
      if (block.type === "text") return [block.text];
      if (block.type !== "tool_result" || block.content === undefined) return [];
      if (typeof block.content === "string") return [block.content];
      return block.content.map((part) => part.text);
    })
    .join("\n");
}

function lastText(content: ContentBlock[]): string {
  const block = content.findLast((candidate) => candidate.type === "text");
  return block?.text ?? "";
}

function excerpt(text: string): string {
  const characters = Array.from(text);
  if (characters.length <= 400) return text;
  return `${characters.slice(0, 200).join("")} … ${characters.slice(-200).join("")}`;
}
