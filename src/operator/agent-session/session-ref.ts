import { ANNOTATIONS } from "../../api/names.ts";
import { isDerivedFrom } from "../../sessions/ids.ts";
import type { SessionRef } from "../../sessions/session-log.ts";
import type { AgentSession } from "../kinds.ts";

/**
 * The session's log as it was pinned before it was made; undefined when it never was. Whoever may
 * write the object may write the annotation, and a copied manifest brings that of another session:
 * only an id that is derived from this object's UID counts.
 */
export function sessionRefOf(session: AgentSession): SessionRef | undefined {
  const { namespace = "", uid = "", annotations } = session.metadata;
  // Users may not write status, so it goes first.
  const id = [session.status?.sessionId, annotations?.[ANNOTATIONS.sessionId]].find(
    (pinned) => pinned !== undefined && isDerivedFrom(pinned, uid),
  );
  return id === undefined ? undefined : { tenant: namespace, id };
}

/** Index of the AgentSession cache by the id of the log. */
export function sessionIdIndex(session: AgentSession): string[] {
  const ref = sessionRefOf(session);
  return ref === undefined ? [] : [ref.id];
}
