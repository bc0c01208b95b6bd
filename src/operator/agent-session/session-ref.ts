import { ANNOTATIONS } from "../../api/names.ts";
import type { SessionRef } from "../../sessions/session-log.ts";
import type { AgentSession } from "../kinds.ts";

/** The session's log as it was pinned before it was made; undefined when it never was. */
export function sessionRefOf(session: AgentSession): SessionRef | undefined {
  const id = session.metadata.annotations?.[ANNOTATIONS.sessionId] ?? session.status?.sessionId;
  return id === undefined ? undefined : { tenant: session.metadata.namespace ?? "", id };
}

/** Index of the AgentSession cache by the id of the log. */
export function sessionIdIndex(session: AgentSession): string[] {
  const ref = sessionRefOf(session);
  return ref === undefined ? [] : [ref.id];
}
