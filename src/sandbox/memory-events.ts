import { readFileSync } from "node:fs";

/** What the kernel says about memory running out in this container (cgroup v2, else v1). */
export interface MemoryEvents {
  /** Processes killed so far because memory ran out; undefined where the kernel does not tell. */
  killed: number | undefined;
  /** Memory limit in bytes; undefined when there is none. */
  limitBytes: number | undefined;
}

const KILL_COUNTERS = ["/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control"];
const LIMITS = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];
/** cgroup v1 says "no limit" by a number near 2^63. */
const NO_LIMIT = 2 ** 60;

export function readMemoryEvents(): MemoryEvents {
  return { killed: parseKills(firstOf(KILL_COUNTERS)), limitBytes: parseLimit(firstOf(LIMITS)) };
}

export function parseKills(text: string): number | undefined {
  const match = /^oom_kill (\d+)$/m.exec(text);
  return match === null ? undefined : Number(match[1]);
}

export function parseLimit(text: string): number | undefined {
  const limit = Number.parseInt(text, 10);
  return Number.isNaN(limit) || limit >= NO_LIMIT ? undefined : limit;
}

/** Kills between two readings; 0 where the kernel does not tell. */
export function killsBetween(before: MemoryEvents, after: MemoryEvents): number {
  return Math.max(0, (after.killed ?? 0) - (before.killed ?? 0));
}

function firstOf(paths: readonly string[]): string {
  for (const path of paths) {
    try {
      return readFileSync(path, "utf8");
    } catch {
      // The other version of cgroups, or none.
    }
  }
  return "";
}
