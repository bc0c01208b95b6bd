import { LIMITS } from "../protocol/session-event.ts";
import type { Block, CallFault, ModelAnswer } from "./model.ts";
import { headAndTail } from "./safe-text.ts";
import { WINDOW_EXCEEDED } from "./stop-reasons.ts";

/**
 * What the log keeps of a model's answer, so that the history stays valid whatever came: every call
 * has an id that no other has, and fits; what cannot be run is kept as a call that failed, with a
 * reason on which the model can act.
 */
export interface RecordedAnswer {
  content: Block[];
  stopReason: string;
  /** By id of a call: why it is not made. */
  notMade: ReadonlyMap<string, string>;
}

export interface RecordRules {
  /** The session has used this id. */
  isTaken: (id: string) => boolean;
  newId: () => string;
  maxOutputTokens: number;
}

/** The Messages API takes no other ids back, and a sandbox none that is longer. */
const VALID_ID = /^[a-zA-Z0-9_-]{1,128}$/;
const MAX_NAME_CHARS = 128;
/** Bytes of JSON: call and intent are events of their own, with the rest of the answer beside. */
const MAX_INPUT_BYTES = 160 * 1024;
/** With more, the intents of one answer would not fit into one batch of the log. */
export const MAX_CALLS = 128;
/** What stands around the blocks of an answer in its event. */
const EVENT_FRAME_BYTES = 4096;

export function recordedAnswer(answer: ModelAnswer, rules: RecordRules): RecordedAnswer {
  const { stopReason } = answer;
  const used = new Set<string>();
  const notMade = new Map<string, string>();
  const content = answer.content.flatMap((block, index): Block[] => {
    if (block.type !== "tool_use") return [block];
    // A model that declined has meant none of its calls.
    if (stopReason === "refusal") return [];
    const id = uniqueId(block["id"], used, rules);
    const why = faultOf(block, answer.faults.get(index));
    if (why !== undefined) notMade.set(id, reasonText(why, stopReason, rules.maxOutputTokens));
    const input = why === undefined ? block["input"] : {};
    return [{ ...block, id, name: String(block["name"]).slice(0, MAX_NAME_CHARS), input }];
  });
  return { content: fitting(fewCalls(content, notMade), notMade), stopReason, notMade };
}

/** Of the calls beyond the limit the first stays, to say that it and the others were not made. */
function fewCalls(content: Block[], notMade: Map<string, string>): Block[] {
  const calls = content.filter(({ type }) => type === "tool_use");
  const excess = calls.slice(MAX_CALLS);
  const [first, ...others] = excess;
  if (first === undefined) return content;
  notMade.set(
    String(first["id"]),
    `The answer held ${calls.length} calls, and one answer may hold ${MAX_CALLS}. This call and the ${others.length} after it were not made. Make them again, fewer at a time.`,
  );
  const dropped = new Set(others);
  return content.flatMap((block) => {
    if (dropped.has(block)) return [];
    return [block === first ? { ...block, input: {} } : block];
  });
}

/** Some gateways number the calls of each answer anew: the ids are equal, the calls are not. */
function uniqueId(given: unknown, used: Set<string>, rules: RecordRules): string {
  const isFree =
    typeof given === "string" && VALID_ID.test(given) && !used.has(given) && !rules.isTaken(given);
  const id = isFree ? given : rules.newId();
  used.add(id);
  return id;
}

function faultOf(block: Block, fault: CallFault | undefined): CallFault | undefined {
  return fault ?? (bytesOf(block["input"]) > MAX_INPUT_BYTES ? "too_large" : undefined);
}

function reasonText(fault: CallFault, stopReason: string, maxOutputTokens: number): string {
  switch (fault) {
    case "cut":
      return `This call was cut off: the answer reached ${
        stopReason === WINDOW_EXCEEDED
          ? "the end of the context window"
          : `its limit of ${maxOutputTokens} output tokens`
      } before the input was complete. The call was not made. Make it smaller: write a long file in several parts, for example.`;
    case "unreadable":
      return "The input of this call is not a JSON object that can be read, so the call was not made. Make it again with valid JSON.";
    case "too_large":
      return tooLargeText;
  }
}

const tooLargeText = `The input of this call is larger than the ${MAX_INPUT_BYTES / 1024} KiB that a call may have, so the call was not made. Make it smaller: write a long file in several parts, for example.`;

/** An event has a limit: the largest block gives way until the rest fits. */
function fitting(content: Block[], notMade: Map<string, string>): Block[] {
  let blocks = content;
  while (bytesOf(blocks) > LIMITS.eventBytes - EVENT_FRAME_BYTES) {
    const [largest] = blocks.toSorted((a, b) => bytesOf(b) - bytesOf(a));
    blocks = blocks.flatMap((block) => (block === largest ? smaller(block, notMade) : [block]));
  }
  return blocks;
}

/** Half of a text, a call without its input, and nothing of a block that cannot be shortened. */
function smaller(block: Block, notMade: Map<string, string>): Block[] {
  if (isText(block) && block.text.length > 1000) {
    return [{ ...block, text: headAndTail(block.text, Math.floor(block.text.length / 2)) }];
  }
  const id = String(block["id"]);
  if (block.type !== "tool_use" || notMade.has(id)) return [];
  notMade.set(id, tooLargeText);
  return [{ ...block, input: {} }];
}

function isText(block: Block): block is Block & { text: string } {
  return block.type === "text" && typeof block.text === "string";
}

function bytesOf(value: unknown): number {
  return Buffer.byteLength(JSON.stringify(value));
}
