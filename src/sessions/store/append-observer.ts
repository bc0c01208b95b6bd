import type { Clock } from "../../runtime/clock.ts";
import type { AppendOutcome, SessionLogMetrics } from "../metrics.ts";
import type { Durability } from "../session-log.ts";

const OUTCOMES: Readonly<Record<string, AppendOutcome>> = {
  OK: "ok",
  DUP: "dup",
  MORE: "more",
  FENCED: "fenced",
  REWOUND: "rewound",
};

/** Counts and times one append; the only place where appends are counted. */
export async function observeAppend<R extends { word: string }>(
  deps: { clock: Pick<Clock, "monotonic">; metrics?: SessionLogMetrics | undefined },
  level: Durability,
  work: () => Promise<R>,
): Promise<R> {
  const start = deps.clock.monotonic();
  let outcome: AppendOutcome = "error";
  try {
    const reply = await work();
    outcome = OUTCOMES[reply.word] ?? "error";
    return reply;
  } finally {
    deps.metrics?.appends.inc({ outcome });
    deps.metrics?.appendDuration.observe({ level }, (deps.clock.monotonic() - start) / 1000);
  }
}
