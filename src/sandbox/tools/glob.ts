import type { Dirent } from "node:fs";
import { type FileHandle, readdir } from "node:fs/promises";
import { join } from "node:path";
import { globInput } from "../../protocol/sandbox-tools.ts";
import { fileTool } from "./files.ts";
import { isLiteral, matchesSegment, parseGlob, type Segment } from "./glob-pattern.ts";
import type { Tool } from "./tool.ts";
import { FileProblem, openFolder, pathIn, statIn, type Workspace } from "./workspace.ts";

/** As many and as deep as the SDK's tool set looks. */
const MAX_RESULTS = 200;
const MAX_ENTRIES = 50_000;
const MAX_DEPTH = 40;

/** Folders that no pattern enters by a wildcard: their files are many, and nobody means them. */
export const SKIPPED_FOLDERS: readonly string[] = [".git", "node_modules"];

/** The `glob` tool. Hidden files, and files that git ignores, are found like others. */
export function createGlobTool(workspace: Workspace): Tool {
  return fileTool("glob", async (raw, { output, signal }) => {
    const { pattern, path = "." } = globInput.parse(raw);
    const alternatives = parseGlob(pattern);
    if (typeof alternatives === "string") throw new FileProblem(alternatives);
    const search = await workspace.at(path, async (place) => {
      const found = new Search(signal);
      const folder =
        place.name === undefined ? place.folder : await openFolder(place.folder, place.name);
      try {
        await found.look(folder, alternatives, []);
      } finally {
        if (folder !== place.folder) await folder.close();
      }
      // Without a path, results begin with the workspace as the session knows it.
      return { found, base: path === "." ? workspace.root : place.path };
    });
    const { matches, notes } = search.found;
    const newest = matches.toSorted((a, b) => b.modified - a.modified).slice(0, MAX_RESULTS);
    const shown = newest.map((match) => join(search.base, ...match.names)).join("\n");
    output.write(Buffer.from(shown));
    return { isError: false, notes: [...(shown === "" ? ["no matches"] : []), ...notes] };
  });
}

interface Match {
  names: readonly string[];
  modified: number;
}

class Search {
  readonly matches: Match[] = [];
  readonly #signal: AbortSignal;
  readonly #skipped = new Set<string>();
  #entries = 0;
  #deepest = 0;

  constructor(signal: AbortSignal) {
    this.#signal = signal;
  }

  /** What the result leaves out. */
  get notes(): string[] {
    const skipped = [...this.#skipped].toSorted().join(" and ");
    return [
      ...(this.matches.length > MAX_RESULTS
        ? [`(the newest ${MAX_RESULTS} of ${this.matches.length} matches; narrow the pattern)`]
        : []),
      ...(this.#entries > MAX_ENTRIES
        ? [`(the search ended after ${MAX_ENTRIES} entries; narrow the pattern or path)`]
        : []),
      ...(this.#deepest > MAX_DEPTH ? [`(folders below ${MAX_DEPTH} levels were left out)`] : []),
      ...(skipped === "" ? [] : [`(${skipped} left out; name the folder in the pattern or path)`]),
    ];
  }

  /** Collects what matches below an open folder; `states` are the segments that are still to match. */
  async look(folder: FileHandle, states: Segment[][], names: readonly string[]): Promise<void> {
    let entries: Dirent[];
    try {
      entries = await readdir(pathIn(folder), { withFileTypes: true });
    } catch {
      // It may not be read, or is gone.
      return;
    }
    for (const entry of entries) {
      this.#entries += 1;
      if (this.#entries > MAX_ENTRIES || this.#signal.aborted) return;
      const next = advance(states, entry.name);
      const path = [...names, entry.name];
      if (entry.isFile() && next.some((left) => left.length === 0)) {
        const modified = (await statIn(folder, entry.name).catch(() => undefined))?.mtimeMs ?? 0;
        this.matches.push({ names: path, modified });
      } else if (entry.isDirectory()) await this.#enter(folder, entry.name, states, next, path);
    }
  }

  async #enter(
    folder: FileHandle,
    name: string,
    states: readonly Segment[][],
    next: Segment[][],
    path: readonly string[],
  ): Promise<void> {
    const left = next.filter((segments) => segments.length > 0);
    if (left.length === 0) return;
    if (SKIPPED_FOLDERS.includes(name) && !isNamed(states, name)) {
      this.#skipped.add(name);
      return;
    }
    this.#deepest = Math.max(this.#deepest, path.length);
    if (path.length > MAX_DEPTH) return;
    const below = await openFolder(folder, name).catch(() => undefined);
    if (below === undefined) return;
    try {
      await this.look(below, left, path);
    } finally {
      await below.close();
    }
  }
}

/** The states after a name, each once. */
function advance(states: readonly Segment[][], name: string): Segment[][] {
  const next: Segment[][] = [];
  // A segment is at one place of one alternative: it stands for all that follows it.
  const seen = new Set<Segment | undefined>();
  const add = (left: Segment[]) => {
    if (seen.has(left[0])) return;
    seen.add(left[0]);
    next.push(left);
  };
  for (const state of states.flatMap(withoutAny)) {
    const [segment, ...rest] = state;
    if (segment === undefined || !matchesSegment(segment, name)) continue;
    add(segment.any ? state : rest);
    // `**` at the end matches a file by itself.
    if (segment.any && rest.length === 0) add(rest);
  }
  return next;
}

/** The state, and those in which a leading `**` stands for no folder. */
function withoutAny(state: Segment[]): Segment[][] {
  const states = [state];
  for (let left = state; left[0]?.any === true; left = left.slice(1)) states.push(left.slice(1));
  return states;
}

function isNamed(states: readonly Segment[][], name: string): boolean {
  return states
    .flatMap(withoutAny)
    .some(
      ([segment]) => segment !== undefined && isLiteral(segment) && matchesSegment(segment, name),
    );
}
