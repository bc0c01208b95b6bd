import { heapBytes } from "../../runtime/heap-bytes.ts";
import type { LogBackend } from "../backend.ts";
import type { EventQuery, Seq, SessionRef, StoredEvent } from "../session-log.ts";
import { sessionNotFound } from "./log-errors.ts";

/**
 * Events per request. A page is asked for by number, and an event may have 256 KiB: the first page is
 * small, and the next ones follow from how large the events were.
 */
const FIRST_PAGE = 8;
const LARGEST_PAGE = 500;
const PAGE_GROWTH = 4;
const PAGE_BYTES = 512 * 1024;
/** Of events whose data is mostly left out. */
const SKIM_PAGE = 200;

/** Events of the next page, after one of `count` events that took up `bytes`. */
export function nextPageSize(count: number, bytes: number): number {
  const fitting = Math.floor(PAGE_BYTES / (bytes / count));
  return Math.max(1, Math.min(fitting, count * PAGE_GROWTH, LARGEST_PAGE));
}

/** Pages through a log in the order asked. SESSION_NOT_FOUND when there is none. */
export async function* readEvents(
  backend: Pick<LogBackend, "read">,
  ref: SessionRef,
  query: EventQuery = {},
): AsyncGenerator<StoredEvent> {
  const reverse = query.reverse === true;
  let left = query.limit ?? Number.POSITIVE_INFINITY;
  let after = query.after ?? 0;
  let before: Seq | undefined = query.before;
  let size = query.dataOf === undefined ? FIRST_PAGE : SKIM_PAGE;
  while (left > 0) {
    query.signal?.throwIfAborted();
    const limit = Math.min(left, size);
    const page = await backend.read(ref, {
      after,
      ...(before === undefined ? {} : { before }),
      limit,
      reverse,
      dataOf: query.dataOf,
    });
    if (page === null) throw sessionNotFound(ref);
    for (const event of page) {
      query.signal?.throwIfAborted();
      yield event;
    }
    const last = page.at(-1);
    if (last === undefined || page.length < limit) return;
    if (reverse) before = last.seq;
    else after = last.seq;
    left -= page.length;
    if (query.dataOf !== undefined) continue;
    const bytes = page.reduce((sum, event) => sum + heapBytes(event), 0);
    size = nextPageSize(page.length, bytes);
  }
}
