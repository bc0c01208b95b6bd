import { type ChildProcessByStdio, spawn } from "node:child_process";
import { once } from "node:events";
import { stat } from "node:fs/promises";
import type { Readable } from "node:stream";
import { betaGrepTool, resolvePath } from "@anthropic-ai/sdk/tools/agent-toolset/node";
import { grepInput } from "../../protocol/sandbox-tools.ts";
import { codeOf } from "../../runtime/errors.ts";
import { decodeText } from "../output.ts";
import { describeSpawnError } from "../processes.ts";
import type { Tool, ToolContext, ToolEnd } from "./tool.ts";

const GREP_DEADLINE_MS = 60_000;
/** More matches than this help nobody; the search ends there. */
const MAX_OUTPUT_BYTES = 96 * 1024;
/** Longer lines are shown by their beginning. */
const MAX_LINE_CHARS = 2000;
const MAX_ERROR_BYTES = 2000;

export interface GrepOptions {
  workspace: string;
  env: Record<string, string>;
}

/**
 * The `grep` tool: ripgrep where it is installed, else the SDK's own search. The SDK's way of
 * calling ripgrep is not used because it decodes each read by itself, which breaks characters whose
 * bytes come in two.
 */
export function createGrepTool(options: GrepOptions): Tool {
  const fallback = betaGrepTool({ workdir: options.workspace });
  return {
    name: "grep",
    input: grepInput,
    queue: undefined,
    deadlineMs: GREP_DEADLINE_MS,
    run: async (raw, context) => {
      const input = grepInput.parse(raw);
      try {
        const target = await resolvePath({ workdir: options.workspace }, input.path ?? ".");
        const problem = await describeTarget(target, input.path ?? ".");
        if (problem !== undefined) return { isError: true, notes: [`grep: ${problem}`] };
        const end = await runRipgrep(options, input.pattern, target, context);
        if (end !== undefined) return end;
        const text = await fallback.run(input);
        if (typeof text === "string") context.output.write(Buffer.from(text));
        return { isError: false, notes: [] };
      } catch (error) {
        if (!Error.isError(error) || error.name !== "ToolError") throw error;
        return { isError: true, notes: [error.message] };
      }
    },
    clean: (text) => text.replace(/\n$/, ""),
    close: () => Promise.resolve(),
  };
}

/** What keeps a path from being searched; reading a pipe would wait for a writer for ever. */
async function describeTarget(target: string, path: string): Promise<string | undefined> {
  try {
    const found = await stat(target);
    return found.isFile() || found.isDirectory() ? undefined : `${path} is not a regular file`;
  } catch (error) {
    return codeOf(error) === "ENOENT"
      ? `${path}: no such file or directory`
      : `${path}: cannot be read`;
  }
}

/** Undefined when there is no ripgrep. */
async function runRipgrep(
  options: GrepOptions,
  pattern: string,
  target: string,
  context: ToolContext,
): Promise<ToolEnd | undefined> {
  const args = ["--no-config", "-n", "-H", "--no-heading", "--color=never"];
  const columns = ["--max-columns", String(MAX_LINE_CHARS), "--max-columns-preview"];
  const child = spawn("rg", [...args, ...columns, "-e", pattern, "--", target], {
    cwd: options.workspace,
    env: options.env,
    stdio: ["ignore", "pipe", "pipe"],
    signal: context.signal,
    killSignal: "SIGKILL",
  });
  const collected = collect(child);
  try {
    const [code]: (number | null)[] = await once(child, "close");
    context.output.write(wholeLines(collected));
    return describeRipgrep(code ?? null, collected);
  } catch (error) {
    if (codeOf(error) === "ENOENT") return undefined;
    if (context.signal.aborted) return { isError: true, notes: ["grep: stopped"], aborted: true };
    return { isError: true, notes: [`grep: ${describeSpawnError(error)}`] };
  }
}

interface Collected {
  output: Buffer[];
  bytes: number;
  cut: boolean;
  errors: Buffer;
}

function collect(child: ChildProcessByStdio<null, Readable, Readable>): Collected {
  const collected: Collected = { output: [], bytes: 0, cut: false, errors: Buffer.alloc(0) };
  child.stdout.on("data", (chunk: Buffer) => {
    if (collected.cut) return;
    collected.output.push(chunk);
    collected.bytes += chunk.length;
    if (collected.bytes > MAX_OUTPUT_BYTES) {
      collected.cut = true;
      child.kill("SIGKILL");
    }
  });
  child.stderr.on("data", (chunk: Buffer) => {
    const room = MAX_ERROR_BYTES - collected.errors.length;
    collected.errors = Buffer.concat([collected.errors, chunk.subarray(0, Math.max(0, room))]);
  });
  return collected;
}

/** Whole lines, so that a cut divides neither a match nor a character. */
function wholeLines(collected: Collected): Buffer {
  const all = Buffer.concat(collected.output);
  return collected.cut ? all.subarray(0, all.lastIndexOf(0x0a, MAX_OUTPUT_BYTES) + 1) : all;
}

function describeRipgrep(code: number | null, collected: Collected): ToolEnd {
  if (collected.cut) {
    return { isError: false, notes: ["(more matches than are shown; narrow the pattern or path)"] };
  }
  // 0: found; 1: nothing found; 2: an error, perhaps in some files only.
  if (code === 0 || (code === 2 && collected.bytes > 0)) return { isError: false, notes: [] };
  if (code === 1) return { isError: false, notes: ["no matches"] };
  return {
    isError: true,
    notes: [`grep: ${decodeText(collected.errors).trim() || `exit ${code}`}`],
  };
}
