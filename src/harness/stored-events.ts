import {
  type SessionEvent,
  type SessionEventType,
  sessionEventData,
} from "../protocol/session-event.ts";
import { AppError } from "../runtime/errors.ts";
import type { StoredEvent } from "../sessions/session-log.ts";

/**
 * A log entry as a typed event; undefined for a type this version does not know, which a newer one
 * may have written and which therefore carries no meaning here. Throws INTERNAL when the data of a
 * known type is not what the alphabet says.
 */
export function parseEvent(stored: StoredEvent): SessionEvent | undefined {
  if (!isKnown(stored.type)) return undefined;
  const parsed = sessionEventData[stored.type].safeParse(stored.data);
  if (!parsed.success) {
    const where = parsed.error.issues[0]?.path.map(String).join(".") ?? "";
    throw new AppError(
      "INTERNAL",
      `event ${stored.seq} (${stored.type}) is malformed at "${where}"`,
    );
  }
  // The schema was chosen by the type, so type and data belong together.
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion
  return { ...stored, data: parsed.data } as SessionEvent;
}

function isKnown(type: string): type is SessionEventType {
  return Object.hasOwn(sessionEventData, type);
}
