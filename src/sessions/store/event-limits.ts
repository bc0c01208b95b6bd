import { type Json, LIMITS } from "../../protocol/session-event.ts";
import { AppError } from "../../runtime/errors.ts";
import type { NewEvent, Release } from "../session-log.ts";

/**
 * Checks a batch against docs/design/session-log.md#limits. INPUT_INVALID, SESSION_EVENT_TOO_LARGE.
 */
export function checkEvents(events: readonly NewEvent[]): void {
  if (events.length === 0) throw new AppError("INPUT_INVALID", "a batch without events");
  checkSizes(events);
}

/** As `checkEvents`, for a batch that may be empty (creation). */
export function checkSizes(events: readonly NewEvent[]): void {
  let total = 0;
  for (const event of events) {
    const bytes = jsonBytes(event.data);
    if (bytes > LIMITS.eventBytes) {
      throw new AppError(
        "SESSION_EVENT_TOO_LARGE",
        `event ${event.id} (${event.type}) has ${bytes} bytes of JSON; an event may have ${LIMITS.eventBytes}. Shorten it`,
        { details: { bytes, limit: LIMITS.eventBytes } },
      );
    }
    total += bytes;
  }
  if (total > LIMITS.batchBytes) {
    throw new AppError(
      "SESSION_EVENT_TOO_LARGE",
      `a batch of ${events.length} events has ${total} bytes of JSON; a batch may have ${LIMITS.batchBytes}. Append it in parts`,
      { details: { bytes: total, limit: LIMITS.batchBytes } },
    );
  }
}

/** A reason is one word of a closed set, never text of a conversation. INPUT_INVALID. */
export function checkRelease(release: Release | null): void {
  if (release !== null && "why" in release && !/^\w{0,64}$/.test(release.why)) {
    throw new AppError("INPUT_INVALID", "the reason of a state is one word");
  }
}

function jsonBytes(data: Json): number {
  return Buffer.byteLength(JSON.stringify(data));
}
