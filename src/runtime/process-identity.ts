import { execFile } from "node:child_process";
import { readFile } from "node:fs/promises";
import { promisify } from "node:util";
import { codeOf } from "./errors.ts";

/** A process, so that another one that gets its pid later is not taken for it. */
export interface ProcessIdentity {
  pid: number;
  /** What `startOf` told while it ran. */
  started: string;
}

export async function isAlive(found: ProcessIdentity): Promise<boolean> {
  try {
    process.kill(found.pid, 0);
  } catch (error) {
    // EPERM: there is such a process, of another user.
    if (codeOf(error) !== "EPERM") return false;
  }
  const started = await startOf(found.pid);
  return started === "" || found.started === "" || started === found.started;
}

/** A text that no other process with this pid has; '' where the system does not tell. */
export async function startOf(pid: number): Promise<string> {
  try {
    const stat = await readFile(`/proc/${pid}/stat`, "utf8");
    const boot = await readFile("/proc/sys/kernel/random/boot_id", "utf8");
    // Field 22, counted behind the command name, which may hold anything.
    const [state = "", ...fields] = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    // A killed process keeps its entry until its parent asks for it: it is gone all the same.
    return "ZX".includes(state) ? "ended" : `${boot.trim()}:${fields[18] ?? ""}`;
  } catch {
    // Not Linux, or the process is gone: `ps` tells which.
    return await startByPs(pid);
  }
}

async function startByPs(pid: number): Promise<string> {
  try {
    const { stdout } = await promisify(execFile)("ps", ["-o", "lstart=", "-p", `${pid}`]);
    return stdout.trim();
  } catch {
    return "";
  }
}
