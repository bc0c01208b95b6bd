import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import { readdirSync, readFileSync } from "node:fs";
import type { Clock } from "../runtime/clock.ts";
import { AppError, codeOf } from "../runtime/errors.ts";

/**
 * Finds and kills everything a shell started, without cgroups. A process belongs to the sandbox when
 * it is in the shell's process group or session, descends from it, or carries the sandbox's marker
 * in its environment (children that used setsid keep it). One that clears its environment *and* is
 * re-parented escapes; it ends with the sandbox.
 */
export interface ProcessInfo {
  pid: number;
  parent: number;
  group: number;
  session: number;
  marked: boolean;
}

/** Environment variable that marks every process of a sandbox; its value is the sandbox's id. */
export const PROCESS_MARKER = "DROVER_SANDBOX";

/** Processes started while the others are being killed are caught by another round. */
const KILL_ROUNDS = 40;
const ROUND_MS = 25;

/** Ids of those that belong to the shell `root` (undefined: marked ones only), never `self`. Pure. */
export function planKill(
  processes: readonly ProcessInfo[],
  root: number | undefined,
  self: number,
): number[] {
  const found = new Set<number>();
  for (const one of processes) {
    const related = one.pid === root || one.group === root || one.session === root;
    if (one.marked || (root !== undefined && related)) found.add(one.pid);
  }
  let grown = true;
  while (grown) {
    const before = found.size;
    for (const one of processes) if (found.has(one.parent)) found.add(one.pid);
    grown = found.size > before;
  }
  found.delete(self);
  return [...found];
}

/**
 * Kills the shell, its process group and all that belongs to the sandbox, in rounds until none is
 * left. Returns how many survive (0, unless the kernel cannot end them at the moment).
 */
export async function killAll(
  clock: Clock,
  root: number | undefined,
  sandboxId: string,
): Promise<number> {
  for (let round = 0; round < KILL_ROUNDS; round += 1) {
    // First the group, in one system call: a fork storm cannot outrun it, while looking takes long.
    if (root !== undefined) kill(-root);
    const victims = planKill(listProcesses(sandboxId), root, process.pid);
    for (const pid of victims) kill(pid);
    if (victims.length === 0) return 0;
    await clock.sleep(ROUND_MS);
  }
  return planKill(listProcesses(sandboxId), root, process.pid).length;
}

function kill(pid: number): void {
  try {
    process.kill(pid, "SIGKILL");
  } catch {
    // It has ended, or is not ours to kill.
  }
}

/** Every live process from /proc; empty where there is no /proc. */
function listProcesses(sandboxId: string): ProcessInfo[] {
  const mark = Buffer.from(`\0${PROCESS_MARKER}=${sandboxId}\0`);
  const found: ProcessInfo[] = [];
  for (const name of namesIn("/proc")) {
    if (!/^\d+$/.test(name)) continue;
    const info = parseStat(readOrEmpty(`/proc/${name}/stat`).toString("latin1"));
    if (info === undefined) continue;
    const environment = Buffer.concat([
      Buffer.from("\0"),
      readOrEmpty(`/proc/${name}/environ`),
      Buffer.from("\0"),
    ]);
    found.push({ ...info, marked: environment.includes(mark) });
  }
  return found;
}

/** Fields of /proc/<pid>/stat (proc(5)); undefined for zombies, which are dead already. */
export function parseStat(text: string): Omit<ProcessInfo, "marked"> | undefined {
  // The command name is in parentheses and may hold anything, parentheses included.
  const end = text.lastIndexOf(")");
  if (end < 0) return undefined;
  const [state, parent, group, session] = text.slice(end + 2).split(" ");
  if (state === "Z" || state === "X") return undefined;
  return {
    pid: Number.parseInt(text, 10),
    parent: Number(parent),
    group: Number(group),
    session: Number(session),
  };
}

function namesIn(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
}

function readOrEmpty(path: string): Buffer {
  try {
    return readFileSync(path);
  } catch {
    // It has ended, or belongs to another user.
    return Buffer.alloc(0);
  }
}

/** Waits until the child runs; throws UNAVAILABLE when it cannot be started. */
export async function spawned(child: ChildProcess): Promise<void> {
  try {
    await once(child, "spawn");
  } catch (error) {
    const why = describeSpawnError(error);
    throw new AppError("UNAVAILABLE", `the command cannot be started: ${why}`, { cause: error });
  }
}

/** What a person or model can do about a process that could not be started. */
export function describeSpawnError(error: unknown): string {
  const code = codeOf(error);
  if (code === "EAGAIN") {
    return "the sandbox has no room for another process; call bash with restart: true to kill what runs";
  }
  if (code === "ENOMEM") return "the sandbox is out of memory";
  if (code === "ENOSPC" || code === "EDQUOT") return "the sandbox's disk is full";
  if (code === "ENOENT") return "the program or the working directory does not exist";
  return `the system answered ${code ?? "an unknown error"}`;
}
