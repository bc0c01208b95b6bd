import { Counter, Histogram, type Registry } from "../runtime/metrics.ts";

export const APPEND_OUTCOMES = ["ok", "dup", "more", "fenced", "rewound", "error"] as const;
export type AppendOutcome = (typeof APPEND_OUTCOMES)[number];

/** What the session log counts; every series exists from the start with value 0. */
export interface SessionLogMetrics {
  /** Appends of either role; `error` includes refusals (no such session, closed, too large). */
  appends: Counter<"outcome">;
  appendDuration: Histogram<"level">;
  /** Time an append waited for replicas or the disk. */
  commitWait: Histogram;
}

const BUCKETS = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10];

export function createSessionLogMetrics(registry: Registry): SessionLogMetrics {
  const registers = [registry];
  const appends = new Counter({
    name: "drover_log_appends_total",
    help: "Appends to session logs by outcome.",
    labelNames: ["outcome"],
    registers,
  });
  const appendDuration = new Histogram({
    name: "drover_log_append_duration_seconds",
    help: "Time of an append to a session log, retries included, by durability level.",
    labelNames: ["level"],
    buckets: BUCKETS,
    registers,
  });
  const commitWait = new Histogram({
    name: "drover_log_commit_wait_seconds",
    help: "Time an append waited for replicas or for the disk.",
    buckets: BUCKETS,
    registers,
  });
  for (const outcome of APPEND_OUTCOMES) appends.inc({ outcome }, 0);
  for (const level of ["applied", "committed"]) appendDuration.zero({ level });
  return { appends, appendDuration, commitWait };
}
