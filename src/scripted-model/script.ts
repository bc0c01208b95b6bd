import { parse } from "yaml";
import { z } from "zod";
import { AppError } from "../runtime/errors.ts";

/**
 * The script of a scripted model (documented with examples in docs/reference/scripted-model.md).
 *
 *     scenarios:
 *       list-files:                        # chosen by the model id "scripted:list-files"
 *         turns:
 *           - expect: { contains: "list" } # of the last user message, tool results included
 *             say: I look at the folder.
 *             tools: [{ name: bash, input: { command: ls } }]
 *           - branches:
 *               - when: { isError: true }
 *                 say: That failed.
 *                 then: list-again
 *             say: Done.
 *
 * The server keeps no state between requests. For each one it replays the conversation against
 * the script: every assistant message is one turn taken, starting at the first turn, and the branch
 * it took follows from the user message before it. The turn after the last assistant message is
 * the answer. So a request that is repeated gets the same answer, ids included.
 */

/** Conditions on the last user message; all that are given must hold. */
const match = z.strictObject({
  /** Each must occur in its text (text blocks and tool results, in order). */
  contains: z.union([z.string(), z.array(z.string())]).optional(),
  /** JavaScript regular expression, flags `su`, tested on the same text. */
  matches: z.string().refine(isPattern, "is not a regular expression").optional(),
  /** True: at least one tool result is an error. False: none is. */
  isError: z.boolean().optional(),
  /** How many tool results it carries. */
  results: z.int().min(0).optional(),
});
export type Match = z.output<typeof match>;

const scriptedTool = z.strictObject({
  name: z.string().min(1),
  input: z.record(z.string(), z.unknown()).default({}),
  /** Call it although the request does not offer it; else that is a mismatch. */
  unoffered: z.boolean().optional(),
});
export type ScriptedTool = z.output<typeof scriptedTool>;

const answerFields = {
  /** Thinking block before everything else. */
  think: z.string().min(1).optional(),
  /** Text block. An empty one ("") is sent as an empty text block: a model may do that. */
  say: z.string().optional(),
  /** Says the text this many times over: for long answers. */
  repeat: z.int().min(1).max(100_000).optional(),
  tools: z.array(scriptedTool).optional(),
  /** Default: `tool_use` when there are tools, else `end_turn`. */
  stopReason: z.string().min(1).optional(),
  /** Before the first byte of the answer. */
  delayMs: z.int().min(0).optional(),
  /** Pace of the streamed text, a token being four characters; unpaced when absent. */
  tokensPerSecond: z.number().positive().optional(),
  /** Name of the turn that follows; default: the next in the list. */
  // oxlint-disable-next-line unicorn/no-thenable -- a word of the script; its value is never a function
  then: z.string().min(1).optional(),
};

const branch = z.strictObject({ when: match, ...answerFields });
export type Branch = z.output<typeof branch>;

const turn = z.strictObject({
  /** For `then`. */
  name: z.string().min(1).optional(),
  /** Must hold, or the request is refused with SCRIPT_MISMATCH. */
  expect: match.optional(),
  /** The first whose `when` holds answers in place of the turn itself. */
  branches: z.array(branch).optional(),
  ...answerFields,
});
export type Turn = z.output<typeof turn>;

const faultAfter = z.int().min(0).default(0);
/** What goes wrong instead of, or in the middle of, an answer. */
export const fault = z.discriminatedUnion("kind", [
  z.strictObject({
    kind: z.literal("status"),
    call: z.int().min(1),
    times: z.int().min(1).default(1),
    status: z.int().min(400).max(599),
    retryAfterSeconds: z.number().min(0).optional(),
  }),
  ...(["timeout", "hang_up", "malformed"] as const).map((kind) =>
    z.strictObject({
      kind: z.literal(kind),
      call: z.int().min(1),
      times: z.int().min(1).default(1),
    }),
  ),
  ...(["overloaded_in_stream", "cut_stream", "stall_stream"] as const).map((kind) =>
    z.strictObject({
      kind: z.literal(kind),
      call: z.int().min(1),
      times: z.int().min(1).default(1),
      /** Content deltas that are sent before. */
      afterDeltas: faultAfter,
    }),
  ),
]);
export type Fault = z.output<typeof fault>;

const scenario = z.strictObject({
  description: z.string().optional(),
  /** Requests estimated above this are refused as the real API does ("prompt is too long"). */
  contextWindowTokens: z.int().min(1).optional(),
  /** Default pace of the turns. */
  tokensPerSecond: z.number().positive().optional(),
  turns: z.array(turn).min(1),
  /** By call count of this scenario, over all conversations. */
  faults: z.array(fault).default([]),
  /** What a request for a summary (compaction) is answered; a marker for the replay is added. */
  summary: z.string().min(1).default("The work so far, in short."),
});
export type Scenario = z.output<typeof scenario>;

const scriptFile = z.strictObject({ scenarios: z.record(z.string().regex(/^[\w-]+$/), scenario) });

export type Script = ReadonlyMap<string, Scenario>;

/** Reads one or more script files; throws CONFIG_INVALID that lists every mistake with its path. */
export function parseScripts(files: readonly { name: string; text: string }[]): Script {
  const scenarios = new Map<string, Scenario>();
  const problems: string[] = [];
  for (const { name, text } of files) {
    const parsed = scriptFile.safeParse(readYaml(name, text, problems));
    for (const issue of parsed.error?.issues ?? []) {
      problems.push(`${name}: ${issue.path.map(String).join(".") || "(top)"}: ${issue.message}`);
    }
    for (const [id, item] of Object.entries(parsed.data?.scenarios ?? {})) {
      if (scenarios.has(id)) problems.push(`${name}: scenario "${id}" is defined twice`);
      problems.push(...unknownTargets(name, id, item));
      scenarios.set(id, item);
    }
  }
  if (problems.length > 0) {
    throw new AppError("CONFIG_INVALID", `bad model script:\n  ${problems.join("\n  ")}`);
  }
  return scenarios;
}

function readYaml(name: string, text: string, problems: string[]): unknown {
  try {
    return parse(text);
  } catch (error) {
    problems.push(`${name}: ${Error.isError(error) ? error.message : "is not YAML"}`);
    return { scenarios: {} };
  }
}

/** Every `then` must name a turn of its scenario. */
function unknownTargets(file: string, id: string, item: Scenario): string[] {
  const names = new Set(item.turns.map((entry) => entry.name));
  return item.turns
    .flatMap((entry) => [entry.then, ...(entry.branches ?? []).map((option) => option.then)])
    .filter((target) => target !== undefined && !names.has(target))
    .map((target) => `${file}: scenarios.${id}: "then: ${target}" names no turn`);
}

function isPattern(source: string): boolean {
  try {
    RegExp(source, "su");
    return true;
  } catch {
    return false;
  }
}
