import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { type FileHandle, readdir } from "node:fs/promises";
import { grepInput } from "../../protocol/sandbox-tools.ts";
import { codeOf } from "../../runtime/errors.ts";
import { decodeText } from "../output.ts";
import { describeSpawnError } from "../processes.ts";
import { fileTool } from "./files.ts";
import { SKIPPED_FOLDERS } from "./glob.ts";
import type { Tool, ToolContext, ToolEnd } from "./tool.ts";
import { openFile, openFolder, type Place, pathIn, statIn, type Workspace } from "./workspace.ts";

/** More matches than this help nobody; the search ends there. */
const MAX_OUTPUT_BYTES = 96 * 1024;
/** Longer lines are shown by their beginning. */
const MAX_LINE_CHARS = 2000;
const MAX_ERROR_BYTES = 2000;

export interface GrepOptions {
  workspace: Workspace;
  env: Record<string, string>;
}

/**
 * The `grep` tool: ripgrep, and the system's grep where that is not installed. Hidden files, and files
 * that git ignores, are searched too. The program is given an open folder to work in, or an open file,
 * so that it reads what was checked.
 */
export function createGrepTool({ workspace, env }: GrepOptions): Tool {
  return fileTool("grep", async (raw, context) => {
    const { pattern, path = "." } = grepInput.parse(raw);
    return await workspace.at(path, async (place) => {
      const target = await openTarget(place, path);
      const base = path === "." ? workspace.root : place.path;
      const skipped = target.isFolder ? await foldersToSkip(target.handle, base) : [];
      const search = { pattern, target, base, skipped, env };
      try {
        return (
          (await run(search, "rg", context)) ??
          (await run(search, "grep", context)) ?? {
            isError: true,
            notes: ["grep: neither ripgrep nor grep is installed in this sandbox"],
          }
        );
      } finally {
        if (target.handle !== place.folder) await target.handle.close();
      }
    });
  });
}

interface Target {
  handle: FileHandle;
  isFolder: boolean;
}

async function openTarget(place: Place, path: string): Promise<Target> {
  if (place.name === undefined) return { handle: place.folder, isFolder: true };
  const found = await statIn(place.folder, place.name);
  return found?.isDirectory() === true
    ? { handle: await openFolder(place.folder, place.name), isFolder: true }
    : { handle: await openFile(place, path), isFolder: false };
}

/** Those of SKIPPED_FOLDERS that are near enough to be seen; none when the search is inside of one. */
async function foldersToSkip(folder: FileHandle, path: string): Promise<string[]> {
  if (path.split("/").some((name) => SKIPPED_FOLDERS.includes(name))) return [];
  const names = new Set<string>();
  for (const entry of await readdir(pathIn(folder), { withFileTypes: true })) {
    names.add(entry.name);
    if (!entry.isDirectory() || SKIPPED_FOLDERS.includes(entry.name)) continue;
    const below = await readdir(pathIn(folder, entry.name)).catch(() => []);
    for (const name of below) names.add(name);
  }
  return SKIPPED_FOLDERS.filter((name) => names.has(name));
}

interface SearchRun {
  pattern: string;
  target: Target;
  base: string;
  skipped: readonly string[];
  env: Record<string, string>;
}

/** What the programs call standard input, by which they get a file. */
const STDIN_NAME = "<stdin>";

function argumentsOf(program: "rg" | "grep", { pattern, target, base }: SearchRun): string[] {
  const inSkipped = base.split("/").some((name) => SKIPPED_FOLDERS.includes(name));
  const skip = inSkipped ? [] : SKIPPED_FOLDERS;
  const where = target.isFolder ? "." : "-";
  if (program === "grep") {
    const exclude = skip.map((name) => `--exclude-dir=${name}`);
    const how = target.isFolder ? ["-rI", ...exclude] : [`--label=${STDIN_NAME}`];
    return ["-nHE", ...how, "-e", pattern, "--", where];
  }
  const style = ["--no-config", "-n", "-H", "--no-heading", "--color=never"];
  const columns = ["--max-columns", String(MAX_LINE_CHARS), "--max-columns-preview"];
  const all = ["--hidden", "--no-ignore", ...skip.flatMap((name) => ["--glob", `!${name}`])];
  return [...style, ...columns, ...all, "-e", pattern, "--", where];
}

/** Undefined when the program is not installed. */
async function run(
  search: SearchRun,
  program: "rg" | "grep",
  context: ToolContext,
): Promise<ToolEnd | undefined> {
  const { target, base, env, skipped } = search;
  const child = spawn(program, argumentsOf(program, search), {
    // Node changes to it in the child, where the handle has the same number.
    ...(target.isFolder ? { cwd: pathIn(target.handle) } : {}),
    env,
    stdio: [target.isFolder ? "ignore" : target.handle.fd, "pipe", "pipe"],
    signal: context.signal,
    killSignal: "SIGKILL",
  });
  const collected = collect(child);
  try {
    const [code]: (number | null)[] = await once(child, "close");
    context.output.write(
      withPaths(wholeLines(collected), target.isFolder ? "." : STDIN_NAME, base),
    );
    const end = describeEnd(code ?? null, collected);
    const notes = [...end.notes];
    if (program === "grep") notes.push(NO_RIPGREP_NOTE);
    if (skipped.length > 0) notes.push(`(${skipped.join(" and ")} left out; name one as path)`);
    return { ...end, notes };
  } catch (error) {
    if (codeOf(error) === "ENOENT") return undefined;
    if (context.signal.aborted) return { isError: true, notes: ["grep: stopped"], aborted: true };
    return { isError: true, notes: [`grep: ${describeSpawnError(error)}`] };
  }
}

const NO_RIPGREP_NOTE =
  "(searched by `grep -E`, because ripgrep is not installed: it does not know \\d)";

/** Each line begins with a path as the program was given it; here with the path in the workspace. */
function withPaths(output: Buffer, given: string, base: string): Buffer {
  const lines = output.toString("latin1").split("\n");
  const path = Buffer.from(base).toString("latin1");
  const named = lines.map((line) =>
    line.startsWith(given) ? `${path}${line.slice(given.length)}` : line,
  );
  return Buffer.from(named.join("\n"), "latin1");
}

interface Collected {
  output: Buffer[];
  bytes: number;
  cut: boolean;
  errors: Buffer;
}

function collect(child: ChildProcess): Collected {
  const collected: Collected = { output: [], bytes: 0, cut: false, errors: Buffer.alloc(0) };
  child.stdout?.on("data", (chunk: Buffer) => {
    if (collected.cut) return;
    collected.output.push(chunk);
    collected.bytes += chunk.length;
    if (collected.bytes > MAX_OUTPUT_BYTES) {
      collected.cut = true;
      child.kill("SIGKILL");
    }
  });
  child.stderr?.on("data", (chunk: Buffer) => {
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

function describeEnd(code: number | null, collected: Collected): ToolEnd {
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
