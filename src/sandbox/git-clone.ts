import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import type { RepositoriesRequest } from "../protocol/sandbox-api.ts";
import { withDeadline } from "../runtime/abort.ts";
import type { Clock } from "../runtime/clock.ts";
import { AppError, hasCode } from "../runtime/errors.ts";
import { edgeUrlOf } from "./git-config.ts";
import { cleanTerminalText, tailOf } from "./output.ts";
import { describeSpawnError } from "./processes.ts";

const CLONE_MS = 600_000;
/** Git tells the reason last. */
const MESSAGE_CHARS = 600;

export interface CloneOptions {
  workspace: string;
  env: Record<string, string>;
  clock: Clock;
  request: RepositoriesRequest;
  repository: RepositoriesRequest["repositories"][number];
  /** Relative to the workspace, so that git's own words name no folder of the host. */
  folder: string;
}

/**
 * `git clone` as anybody would type it. Resolves when the clone is whole; throws UNAVAILABLE with git's
 * words, TIMEOUT after ten minutes. Nothing of it runs on after that; what it wrote is the caller's.
 */
export async function cloneRepository(options: CloneOptions, signal: AbortSignal): Promise<void> {
  const { workspace, env, repository, folder } = options;
  const { url, branch } = repository;
  const args = [...(branch === undefined ? [] : [`--branch=${branch}`]), "--", url, folder];
  const child = spawn("git", ["clone", ...args], {
    cwd: workspace,
    env,
    // A process group of its own: one kill reaches git's helpers.
    detached: true,
    stdio: ["ignore", "ignore", "pipe"],
  });
  let words = "";
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    words = tailOf(words + text, 4 * MESSAGE_CHARS);
  });
  const [code, by] = await endOf(child, options.clock, signal);
  if (code === 0) return;
  const said = readable(words, options);
  const how = by === null ? `git ended with exit code ${code}` : `git was ended by ${by}`;
  throw new AppError("UNAVAILABLE", said === "" ? how : said);
}

/** Exit code and signal. Kills git and its helpers when the time is up or the signal aborts. */
async function endOf(
  child: ChildProcess,
  clock: Clock,
  signal: AbortSignal,
): Promise<[number | null, string | null]> {
  const closed = once(child, "close");
  try {
    return await withDeadline(
      clock,
      CLONE_MS,
      "git clone",
      async (limit) => {
        limit.addEventListener("abort", () => killGroup(child.pid), { once: true });
        if (limit.aborted) killGroup(child.pid);
        const [code, by]: (number | string | null)[] = await closed;
        return [typeof code === "number" ? code : null, typeof by === "string" ? by : null];
      },
      signal,
    );
  } catch (error) {
    if (hasCode(error, "TIMEOUT")) {
      await closed.catch(() => {});
      throw error;
    }
    throw new AppError("UNAVAILABLE", `git cannot be started: ${describeSpawnError(error)}`);
  }
}

function killGroup(pid: number | undefined): void {
  try {
    if (pid !== undefined) process.kill(-pid, "SIGKILL");
  } catch {
    // It has ended already.
  }
}

/** The end of what git said, with the repository's own URL for that of the edge. Never the token. */
function readable(words: string, { request, repository, folder }: CloneOptions): string {
  const text = cleanTerminalText(words)
    .replaceAll(edgeUrlOf(request, repository.name), repository.url)
    .replaceAll(request.sandboxToken, "[token]")
    .split(/[\r\n]+/)
    .map((line) => line.trim())
    .filter((line) => line !== "" && !line.startsWith("Cloning into "))
    .join("; ")
    .replaceAll(folder, repository.path);
  return tailOf(text, MESSAGE_CHARS).trim();
}
