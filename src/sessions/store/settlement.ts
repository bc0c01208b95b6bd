import type { SessionEventData } from "../../protocol/session-event.ts";
import type { Rng } from "../../runtime/rng.ts";
import type { LogBackend } from "../backend.ts";
import type { LogStatus, NewEvent, Seq, SessionRef, StoredEvent } from "../session-log.ts";

/** Small: what kills a worker may be the size of what it reads. */
const PAGE_SIZE = 20;

const UNSETTLED_CALL =
  "The session was set aside while this call was open. The call may have had none, part or all of its effect. Check before repeating it.";

/**
 * The events that end what is open in the log of a session that was set aside: its model request,
 * its tool calls and, when it was stopped there, the session. Reads back to the last model request:
 * whatever is open came after it.
 */
export async function closingEvents(
  backend: Pick<LogBackend, "read">,
  ref: SessionRef,
  end: { status: LogStatus; why: string; rng: Pick<Rng, "id"> },
): Promise<NewEvent[]> {
  const add = (type: string, data: NewEvent["data"]) => ({ id: end.rng.id("sevt"), type, data });
  const { request, calls } = await openEnds(backend, ref);
  const events: NewEvent[] = calls.map((id) =>
    add("tool.result", {
      id,
      content: UNSETTLED_CALL,
      is_error: true,
      outcome: "unknown",
    } satisfies SessionEventData<"tool.result">),
  );
  if (request !== undefined) {
    events.push(add("model.request_abandoned", { req: request, reason: "quarantined" }));
  }
  if (end.status === "terminated") events.push(add("session.terminated", { reason: end.why }));
  return events;
}

async function openEnds(
  backend: Pick<LogBackend, "read">,
  ref: SessionRef,
): Promise<{ request: string | undefined; calls: string[] }> {
  const closed = new Set<string>();
  const calls: string[] = [];
  let before: Seq | undefined;
  for (;;) {
    const page = await backend.read(ref, {
      ...(before === undefined ? {} : { before }),
      limit: PAGE_SIZE,
      reverse: true,
    });
    for (const event of page ?? []) {
      const name = nameOf(event);
      if (event.type === "model.request_start") {
        return { request: closed.has(name) ? undefined : name, calls: calls.toReversed() };
      }
      if (event.type === "tool.intent") {
        // Clients name a call by its event.
        if (!closed.has(name) && !closed.has(event.id)) calls.push(name);
      } else if (name !== "") closed.add(name);
    }
    before = page?.at(-1)?.seq;
    if (before === undefined) return { request: undefined, calls: calls.toReversed() };
  }
}

/** What an event begins or ends: a model request, a tool call, or nothing (''). */
function nameOf({ type, data }: StoredEvent): string {
  const key = NAME_FIELDS[type];
  if (key === undefined || typeof data !== "object" || data === null || Array.isArray(data)) {
    return "";
  }
  const name = data[key];
  return typeof name === "string" ? name : "";
}

const NAME_FIELDS: Readonly<Record<string, string>> = {
  "model.request_start": "req",
  "model.request_end": "req",
  "model.request_abandoned": "req",
  "tool.intent": "id",
  "tool.result": "id",
  "user.custom_tool_result": "custom_tool_use_id",
};
