import type { LogBackend } from "../backend.ts";
import type { EventQuery, Seq, SessionRef, StoredEvent } from "../session-log.ts";
import { sessionNotFound } from "./log-errors.ts";

/** Events per request: at 1 KB each a page is about 0.5 MB (session-log §6.1). */
const PAGE_SIZE = 500;

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
  while (left > 0) {
    query.signal?.throwIfAborted();
    const limit = Math.min(left, PAGE_SIZE);
    const page = await backend.read(ref, {
      after,
      ...(before === undefined ? {} : { before }),
      limit,
      reverse,
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
  }
}
