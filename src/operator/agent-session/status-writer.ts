import type { AgentSessionStatus } from "../../api/agent-session.ts";
import type { KubeClient } from "../../kube/client.ts";
import type { EventSink } from "../../kube/event-recorder.ts";
import { rfc3339, writeStatus } from "../../kube/status.ts";
import type { Clock } from "../../runtime/clock.ts";
import { type AgentSession, agentSessions } from "../kinds.ts";
import type { OperatorMetrics } from "../metrics.ts";
import { eventsOf } from "./events.ts";
import { isCompleted, mergedConditions } from "./plan.ts";
import type { SessionMemory } from "./session-memory.ts";
import type { WantedStatus } from "./status-of.ts";

export interface StatusWriterDeps {
  client: Pick<KubeClient, "patchStatus">;
  events: EventSink;
  metrics: Pick<OperatorMetrics, "sessionEnds">;
  memory: SessionMemory;
  clock: Pick<Clock, "now">;
}

/** The only place that writes a session's status; Events and metrics of a transition go with it. */
export class StatusWriter {
  readonly #deps: StatusWriterDeps;

  constructor(deps: StatusWriterDeps) {
    this.#deps = deps;
  }

  async write(
    session: AgentSession,
    status: AgentSessionStatus,
    wanted: WantedStatus,
  ): Promise<void> {
    const { client, clock, events, memory, metrics } = this.#deps;
    if (!(await writeStatus(client, agentSessions, session, status))) return;
    memory.of(session).lastWriteAt = clock.now();
    for (const event of eventsOf(session, wanted, status))
      events.record(agentSessions, session, event);
    const completed = wanted.conditions.find(({ type }) => type === "Completed");
    if (completed?.status === "True" && !isCompleted(session)) {
      metrics.sessionEnds.inc({ reason: completed.reason });
    }
  }

  /** For a session that has no log: only what can be said without one. */
  async writeWithoutLog(session: AgentSession, wanted: WantedStatus): Promise<void> {
    const nowMs = this.#deps.clock.now();
    const completed = wanted.conditions.find(({ type }) => type === "Completed");
    const ends = completed?.status === "True" && !isCompleted(session);
    await this.write(
      session,
      {
        ...session.status,
        ...(ends ? { completionTime: rfc3339(nowMs) } : {}),
        observedGeneration: session.metadata.generation,
        state: wanted.state,
        conditions: mergedConditions(session, wanted.conditions, nowMs),
      },
      wanted,
    );
  }
}
