import { ANNOTATIONS, FINALIZER } from "../../api/names.ts";
import type { KubeClient } from "../../kube/client.ts";
import type { PassContext } from "../../kube/controller.ts";
import { type Outcome, settled, settledFor, stalled, waiting } from "../../kube/outcome.ts";
import type { SessionSnapshot } from "../../protocol/snapshot.ts";
import type { Clock } from "../../runtime/clock.ts";
import type { Rng } from "../../runtime/rng.ts";
import type { OperatorLog, SessionRef } from "../../sessions/session-log.ts";
import { condition, inProgress, notWithoutHelp, readyNow, type Wanted } from "../conditions.ts";
import { type AgentSession, agentSessions } from "../kinds.ts";
import type { OperatorMetrics } from "../metrics.ts";
import { firstEvents } from "./first-events.ts";
import { deadlineOf, expiryOf, SETTLE_MS } from "./plan.ts";
import { gatherReferences, type ReferencesDeps } from "./references.ts";
import { type Resolution, referencesNotChecked, resolveSession } from "./resolve.ts";
import { pinnedOf, type SessionMemory } from "./session-memory.ts";
import { deadlineExceeded, type WantedStatus } from "./status-of.ts";
import type { StatusWriter } from "./status-writer.ts";

export interface SessionStartDeps extends ReferencesDeps {
  client: Pick<KubeClient, "get" | "patch">;
  log: Pick<OperatorLog, "createSession">;
  status: StatusWriter;
  memory: SessionMemory;
  metrics: Pick<OperatorMetrics, "sessionsCreated">;
  clock: Pick<Clock, "now">;
  rng: Rng;
}

/** What comes with the same `kubectl apply` is not missing; kstatus calls Stalled a failure at once. */
const MISSING_GRACE_MS = 2_000;
const NOT_REGISTERED_MS = 5_000;
/** Labels of namespaces are not watched. */
const NAMESPACE_RECHECK_MS = 60_000;

/** From an AgentSession without a log to one with a log, or to a condition that says why not. */
export class SessionStart {
  readonly #deps: SessionStartDeps;

  constructor(deps: SessionStartDeps) {
    this.#deps = deps;
  }

  /** The log's reference, or how the pass ends when there can be none yet. */
  async begin(session: AgentSession, context: PassContext): Promise<SessionRef | Outcome> {
    const { clock, status } = this.#deps;
    const deadline = deadlineOf(session);
    const over = endedBeforeStart(session, clock.now());
    if (over !== undefined) {
      await status.writeWithoutLog(session, {
        ...over,
        conditions: [...over.conditions, ...referencesNotChecked()],
      });
      const expiry = expiryOf(session) - clock.now();
      return Number.isFinite(expiry) ? settledFor(expiry) : settled;
    }
    const resolution = resolveSession(await gatherReferences(this.#deps, session, context.signal));
    if (resolution.kind === "resolved") return this.#create(session, resolution.snapshot, context);
    return this.#explain(session, resolution, deadline);
  }

  async #create(
    session: AgentSession,
    snapshot: SessionSnapshot,
    { signal, logger }: PassContext,
  ): Promise<SessionRef> {
    const { log, memory, metrics, clock } = this.#deps;
    await this.#pin(session, snapshot.sessionId, signal);
    const ref = { tenant: snapshot.tenant, id: snapshot.sessionId };
    const { created } = await log.createSession({
      ...ref,
      snapshot,
      events: firstEvents(session, snapshot, this.#deps.rng),
      wake: session.spec.operatingMode === "Running",
      source: "manifest",
    });
    if (created) {
      const remembered = memory.of(session);
      remembered.pinned = pinnedOf(snapshot);
      remembered.createdAt = clock.now();
      metrics.sessionsCreated.inc({ source: "manifest" });
      logger.info({ sessionId: ref.id }, "session created");
    }
    return ref;
  }

  /**
   * Finalizer and session id in one patch, before the log exists: whatever happens next, the log
   * can be found and removed.
   */
  async #pin(session: AgentSession, sessionId: string, signal: AbortSignal): Promise<void> {
    const { metadata } = session;
    const finalizers = metadata.finalizers ?? [];
    const pinned = metadata.annotations?.[ANNOTATIONS.sessionId] === sessionId;
    if (pinned && finalizers.includes(FINALIZER)) return;
    const body = {
      metadata: {
        resourceVersion: metadata.resourceVersion,
        finalizers: [...new Set([...finalizers, FINALIZER])],
        annotations: { [ANNOTATIONS.sessionId]: sessionId },
      },
    };
    await this.#deps.client.patch(agentSessions, metadata, { kind: "merge", body }, { signal });
  }

  async #explain(
    session: AgentSession,
    resolution: Exclude<Resolution, { kind: "resolved" }>,
    deadline: number,
  ): Promise<Outcome> {
    const { clock, status } = this.#deps;
    const age = clock.now() - Date.parse(session.metadata.creationTimestamp ?? "");
    if (resolution.kind === "not-yet") {
      const wanted = inProgress("Progressing", resolution.message);
      if (age >= SETTLE_MS) {
        await status.writeWithoutLog(session, pending(wanted, resolution.conditions));
      }
      return waiting("Progressing", NOT_REGISTERED_MS, resolution.message);
    }
    if (age < MISSING_GRACE_MS) return waiting("Progressing", MISSING_GRACE_MS - age);
    const { reason, message } = resolution.problem;
    const wanted = notWithoutHelp(reason, message);
    await status.writeWithoutLog(session, pending(wanted, resolution.conditions));
    const recheck = Math.min(
      deadline - clock.now(),
      reason === "NamespaceNotAllowed" ? NAMESPACE_RECHECK_MS : Number.POSITIVE_INFINITY,
    );
    return Number.isFinite(recheck) ? settledFor(recheck) : stalled(reason, message);
  }
}

function pending(ready: Wanted[], references: Wanted[]): WantedStatus {
  const completed = condition("Completed", "False", "Progressing");
  return { state: "Pending", conditions: [...ready, completed, ...references], final: true };
}

/** Stopped or too late before there was anything to stop: no log is made for that. */
function endedBeforeStart(session: AgentSession, now: number): WantedStatus | undefined {
  if (session.spec.operatingMode === "Stopped") {
    const completed = condition("Completed", "True", "Stopped", "stopped before it started");
    return { state: "Stopped", conditions: [...readyNow("Stopped"), completed], final: true };
  }
  if (deadlineOf(session) > now) return undefined;
  return deadlineExceeded(
    "spec.activeDeadlineSeconds passed before the session could start; see the other conditions for what was missing",
  );
}
