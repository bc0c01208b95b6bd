import type { SessionSnapshot } from "../../protocol/snapshot.ts";
import type { Rng } from "../../runtime/rng.ts";
import type { NewEvent } from "../../sessions/session-log.ts";
import type { AgentSession } from "../kinds.ts";

/** What a session's log begins with: its creation and the messages of its manifest. */
export function firstEvents(
  session: AgentSession,
  { agent }: SessionSnapshot,
  rng: Pick<Rng, "id">,
): NewEvent[] {
  const created: NewEvent = {
    id: rng.id("sevt"),
    type: "session.created",
    data: { agent: agent.name, agentRevision: agent.revision },
  };
  const messages = session.spec.messages.map(
    ({ text }): NewEvent => ({
      id: rng.id("sevt"),
      type: "user.message",
      data: { content: [{ type: "text", text }] },
    }),
  );
  return [created, ...messages];
}
