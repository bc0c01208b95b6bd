import { createHash } from "node:crypto";
import { parseExact } from "../../protocol/exact-json.ts";
import { LIMITS } from "../../protocol/session-event.ts";
import { AppError } from "../../runtime/errors.ts";
import type { NewEvent, StoredEvent } from "../session-log.ts";

/**
 * How events stand in a stream entry. JSON over 64 KiB is kept beside the stream under its hash,
 * and the entry holds a reference with a preview (docs/design/session-log.md#limits); readers put
 * it back.
 */

const PREVIEW_CHARS = 2048;
/** An entry that begins so is a reference; data of a caller that does is kept aside whatever its size. */
const REFERENCE_START = '{"blob":';

/** ARGV of a script: number of payloads, (hash, bytes)*, (id, type, json)*. */
export function encodeEvents(events: readonly NewEvent[]): string[] {
  const payloads: string[] = [];
  const entries: string[] = [];
  for (const event of events) {
    const json = JSON.stringify(event.data);
    const size = Buffer.byteLength(json);
    if (size <= LIMITS.inlineBytes && !json.startsWith(REFERENCE_START)) {
      entries.push(event.id, event.type, json);
      continue;
    }
    const sha256 = createHash("sha256").update(json).digest("hex").slice(0, 32);
    payloads.push(sha256, json);
    const reference = {
      blob: { sha256, size, mime: "application/json" },
      preview: [json.slice(0, PREVIEW_CHARS), json.slice(-PREVIEW_CHARS)],
    };
    entries.push(event.id, event.type, JSON.stringify(reference));
  }
  return [`${payloads.length / 2}`, ...payloads, ...entries];
}

type Entry = [id: string, fields: string[]];

/**
 * Entries as events; `payloadsOf` fetches what was kept aside, in the order asked. With `dataOf` only
 * these types get their data.
 */
export async function decodeEntries(
  entries: readonly Entry[],
  payloadsOf: (hashes: string[]) => Promise<(string | null)[]>,
  dataOf?: ReadonlySet<string>,
): Promise<StoredEvent[]> {
  const isWanted = (fields: string[]) => dataOf === undefined || dataOf.has(fields[3] ?? "");
  const wanted = entries.filter(([, fields]) => isWanted(fields));
  const hashes = [...new Set(wanted.flatMap(([, fields]) => referenceIn(fields[9] ?? "")))];
  const found = hashes.length === 0 ? [] : await payloadsOf(hashes);
  const payloads = new Map(hashes.map((hash, i) => [hash, found[i] ?? null]));
  return entries.map(([id, fields]) => {
    const [, eventId = "", , type = "", , epoch = "0", , ts = "0", , inline = "", , chain = ""] =
      fields;
    const head = {
      id: eventId,
      type,
      seq: Number.parseInt(id, 10),
      epoch: Number(epoch),
      ts: Number(ts),
      chain,
    };
    if (!isWanted(fields)) return { ...head, data: null };
    const [hash] = referenceIn(inline);
    const json = hash === undefined ? inline : payloads.get(hash);
    if (json === null || json === undefined) {
      throw new AppError("INTERNAL", `the payload of event ${eventId} is missing from Redis`);
    }
    return { ...head, data: parseExact(json) };
  });
}

function referenceIn(json: string): string[] {
  if (!json.startsWith(REFERENCE_START)) return [];
  const hash = /^\{"blob":\{"sha256":"([0-9a-f]{32})"/.exec(json)?.[1];
  return hash === undefined ? [] : [hash];
}
