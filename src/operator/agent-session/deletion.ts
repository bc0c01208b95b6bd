import { FINALIZER, LABELS } from "../../api/names.ts";
import type { KubeClient } from "../../kube/client.ts";
import { isNotFound, unlessNotFound } from "../../kube/errors.ts";
import type { EventSink } from "../../kube/event-recorder.ts";
import type { Informer } from "../../kube/informer.ts";
import { uidOf } from "../../kube/objects.ts";
import { type Outcome, settled, waiting } from "../../kube/outcome.ts";
import type { Clock } from "../../runtime/clock.ts";
import { describeError, hasCode } from "../../runtime/errors.ts";
import type { Logger } from "../../runtime/logger.ts";
import type { Rng } from "../../runtime/rng.ts";
import type { OperatorLog, SessionRef } from "../../sessions/session-log.ts";
import { type AgentSession, agentSessions, type Pod, pods } from "../kinds.ts";
import type { Erasures } from "./erasures.ts";
import { warning } from "./events.ts";
import { sessionRefOf } from "./session-ref.ts";

export interface SessionDeletionDeps {
  client: Pick<KubeClient, "delete" | "patch">;
  log: Pick<
    OperatorLog,
    "emitEvents" | "statusOf" | "snapshotOf" | "deleteSession" | "unbindSandbox"
  >;
  /** Sandbox pods, with the index `session` (UID of the AgentSession). */
  pods: Informer<Pod>;
  erasures: Pick<Erasures, "note">;
  events: EventSink;
  clock: Pick<Clock, "now">;
  rng: Rng;
  logger: Logger;
  /** The session is no longer of interest to the change feed and the memory. */
  forget(session: AgentSession, ref: SessionRef | undefined): void;
}

/** A worker gets this long to end running calls before the log is taken from under it. */
const STOP_MS = 5_000;
/** After this the finalizer goes in any case: a namespace must not hang because Redis is down. */
const GIVE_UP_MS = 30_000;
const LOOK_MS = 500;

/**
 * The end of an AgentSession: stop the session, delete its pods, erase its log, let the object go.
 * Each step may be repeated; the object stays until all are done or the time is up. A log that is
 * left then is erased later: see `Erasures`.
 */
export class SessionDeletion {
  readonly #deps: SessionDeletionDeps;

  constructor(deps: SessionDeletionDeps) {
    this.#deps = deps;
  }

  async advance(session: AgentSession, signal: AbortSignal): Promise<Outcome> {
    // Without our finalizer nothing outside was made, or it is gone; a foreign finalizer is not ours to serve.
    if (!session.metadata.finalizers?.includes(FINALIZER)) {
      this.#deps.forget(session, undefined);
      return settled;
    }
    const { clock } = this.#deps;
    const deletedAt = Date.parse(session.metadata.deletionTimestamp ?? "");
    const age = clock.now() - deletedAt;
    const ref = sessionRefOf(session);
    try {
      const done = await this.#cleanUp(session, ref, age, signal);
      if (!done && age < GIVE_UP_MS) return waiting("Progressing", LOOK_MS);
      if (!done) await this.#forced(session, ref, "its sandbox pods are still terminating");
    } catch (error) {
      if (age < GIVE_UP_MS) throw error;
      await this.#forced(session, ref, `its log could not be erased (${describeError(error)})`);
    }
    await this.#letGo(session, signal);
    this.#deps.forget(session, ref);
    return settled;
  }

  /** True when nothing of the session is left. */
  async #cleanUp(
    session: AgentSession,
    ref: SessionRef | undefined,
    age: number,
    signal: AbortSignal,
  ): Promise<boolean> {
    const { log } = this.#deps;
    const left = await this.#deletePods(session, signal);
    if (ref === undefined || !(await this.#isItsLog(session, ref))) return left === 0;
    if (!(await this.#stopped(session, ref)) && age < STOP_MS) return false;
    if (left > 0) return false;
    await log.deleteSession(ref);
    return true;
  }

  /** What was made for another object is neither stopped nor erased. */
  async #isItsLog(session: AgentSession, ref: SessionRef): Promise<boolean> {
    const snapshot = await this.#deps.log.snapshotOf(ref);
    return snapshot === null || snapshot.object?.uid === uidOf(session);
  }

  /** Nobody works on it any more. */
  async #stopped(session: AgentSession, ref: SessionRef): Promise<boolean> {
    const { log, rng } = this.#deps;
    const state = (await log.statusOf([ref]))[0];
    if (!state || state.status === "terminated" || !state.leased) return true;
    const event = {
      id: rng.id("sevt"),
      type: "session.stop_requested",
      data: { reason: "stop" as const },
    };
    try {
      await log.emitEvents(ref, [event], { idempotencyKey: `${uidOf(session)}:delete` });
    } catch (error) {
      // It ended between the question and the request.
      if (!hasCode(error, "SESSION_CLOSED") && !hasCode(error, "SESSION_NOT_FOUND")) throw error;
      return true;
    }
    return false;
  }

  /** How many are still there. */
  async #deletePods(session: AgentSession, signal: AbortSignal): Promise<number> {
    const { client, log } = this.#deps;
    const found = this.#deps.pods.byIndex("session", uidOf(session));
    for (const pod of found) {
      const uid = uidOf(pod);
      if (pod.metadata.deletionTimestamp === undefined) {
        await unlessNotFound(
          client.delete(pods, pod.metadata, { uid, propagation: "Background", signal }),
        );
      }
      await log.unbindSandbox(uid);
    }
    return found.length;
  }

  async #forced(session: AgentSession, ref: SessionRef | undefined, why: string): Promise<void> {
    const log = ref === undefined ? "" : `; ${await this.#later(session, ref)}`;
    const note = `the finalizer was removed although ${why}; pods that are left of session "${session.metadata.name}" have label ${LABELS.session}=${uidOf(session)}${log}`;
    this.#deps.events.record(agentSessions, session, warning("CleanupForced", note));
    const { namespace, name } = session.metadata;
    this.#deps.logger.warn({ namespace, name, reason: why }, "clean-up forced");
  }

  /** Says what becomes of the log. Whatever happens, a namespace that is being deleted must not hang. */
  async #later(session: AgentSession, ref: SessionRef): Promise<string> {
    try {
      await this.#deps.erasures.note(session, ref);
      return `log ${ref.id} is erased as soon as Redis can be used`;
    } catch (error) {
      return `log ${ref.id} stays in Redis, because it could not be noted for later (${describeError(error)}): delete its keys by hand`;
    }
  }

  async #letGo(session: AgentSession, signal: AbortSignal): Promise<void> {
    const { metadata } = session;
    const finalizers = (metadata.finalizers ?? []).filter((name) => name !== FINALIZER);
    const body = { metadata: { resourceVersion: metadata.resourceVersion, finalizers } };
    try {
      await this.#deps.client.patch(agentSessions, metadata, { kind: "merge", body }, { signal });
    } catch (error) {
      if (!isNotFound(error)) throw error;
    }
  }
}
