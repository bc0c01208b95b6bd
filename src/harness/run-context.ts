import type {
  NewSessionEvent,
  SessionEventData,
  SessionEventType,
} from "../protocol/session-event.ts";
import type { SessionSnapshot } from "../protocol/snapshot.ts";
import type { Clock } from "../runtime/clock.ts";
import type { Logger } from "../runtime/logger.ts";
import type { Rng } from "../runtime/rng.ts";
import type { Lease } from "../sessions/session-log.ts";
import type { Journal } from "./journal.ts";
import type { HarnessMetrics } from "./metrics.ts";
import { eventText } from "./safe-text.ts";

/** What the parts of one hold of one session share. */
export interface RunContext {
  lease: Lease;
  journal: Journal;
  snapshot: SessionSnapshot;
  clock: Clock;
  rng: Rng;
  logger: Logger;
  metrics: HarnessMetrics;
  signals: RunSignals;
}

export interface RunSignals {
  /** The lease or the log is gone: stop at once and touch nothing. */
  dead: AbortSignal;
  /** Hand the session over at the next boundary; work that another worker can join is left running. */
  leave: AbortSignal;
  /** Time to finish is up: break off what is still running. */
  hard: AbortSignal;
}

/** How a tool call ended, for the log. */
export interface CallOutcome {
  content: string;
  isError: boolean;
  outcome: SessionEventData<"tool.result">["outcome"];
}

export function newEvent<T extends SessionEventType>(
  rng: Rng,
  type: T,
  data: SessionEventData<T>,
  id: string = rng.id("sevt"),
): Extract<NewSessionEvent, { type: T }> {
  // The compiler cannot relate T to one member of the union; the signature does.
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion
  return { id, type, data } as Extract<NewSessionEvent, { type: T }>;
}

/** Whoever made the result: one that is too large for the log would end the session, not the call. */
export function resultEvent(rng: Rng, id: string, outcome: CallOutcome) {
  return newEvent(rng, "tool.result", {
    id,
    content: eventText(outcome.content),
    is_error: outcome.isError,
    outcome: outcome.outcome,
  });
}
