import { createHash } from "node:crypto";
import type { NewEvent } from "./session-log.ts";

/**
 * Each event carries a value made from the value before it and from what it says. So two logs that
 * have the same value at a place are the same up to there (docs/design/session-log.md#chain-values).
 * An equal id does not prove that: an append that is repeated after a failover has the same id on top
 * of another beginning. The value of no event is ''.
 */
export function chainValue(before: string, { id, type, data }: NewEvent): string {
  const said = `${before}\0${id}\0${type}\0${JSON.stringify(data)}`;
  return createHash("sha1").update(said).digest("hex").slice(0, 16);
}

/**
 * The last event's value from what a log's state keeps, `<seq>:<value>`: '' when that event has none.
 * A version that knows no chain values appends events and leaves the state's field as it was.
 */
export function chainAt(kept: string, seq: number): string {
  return kept.startsWith(`${seq}:`) ? kept.slice(kept.indexOf(":") + 1) : "";
}
