import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { availableParallelism } from "node:os";

/** The core of what is measured, and that of everything else; undefined where there is only one. */
export const CORES: { measured: number; others: number } | undefined =
  availableParallelism() < 2 || spawnSync("taskset", ["-V"]).error !== undefined
    ? undefined
    : { measured: 0, others: 1 };

/** Keeps this process, and what it starts from now on, off the measured core. */
export function leaveMeasuredCore(): void {
  if (CORES === undefined) return;
  spawnSync("taskset", ["-a", "-c", "-p", String(CORES.others), String(process.pid)]);
}

/** A TypeScript program of ours on one core. */
export function startProgram(
  file: string,
  options: { core?: number | undefined; env?: Record<string, string>; stdout: "pipe" | number },
): ChildProcess {
  const command = [process.execPath, file];
  const pinned =
    options.core === undefined ? command : ["taskset", "-c", String(options.core), ...command];
  const [program = "", ...args] = pinned;
  return spawn(program, args, {
    env: { PATH: process.env["PATH"], ...options.env },
    stdio: ["ignore", options.stdout, "inherit"],
  });
}

const TICKS_PER_SECOND = 100;

/** CPU seconds of a process since its start. */
export function cpuSeconds(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return (Number(fields[11]) + Number(fields[12])) / TICKS_PER_SECOND;
}
