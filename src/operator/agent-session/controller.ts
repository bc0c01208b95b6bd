import type { KubeClient } from "../../kube/client.ts";
import {
  type Controller,
  type PassContext,
  type Watch,
  watchMapped,
  watchObjects,
} from "../../kube/controller.ts";
import { isKubeError } from "../../kube/errors.ts";
import { isBeingDeleted, objectKey, refOf, uidOf } from "../../kube/objects.ts";
import { type Outcome, settled, settledFor, stalled, waiting } from "../../kube/outcome.ts";
import { findCondition } from "../../kube/status.ts";
import type { Clock } from "../../runtime/clock.ts";
import { AppError, codeOf, describeError } from "../../runtime/errors.ts";
import type { Rng } from "../../runtime/rng.ts";
import type { OperatorLog, SessionRef, SessionState } from "../../sessions/session-log.ts";
import { condition, inProgress, notWithoutHelp } from "../conditions.ts";
import { type AgentSession, agentSessions } from "../kinds.ts";
import type { SandboxWaits } from "../sandbox-waits.ts";
import { isHeldUp, type StoreOutage } from "../store-outage.ts";
import type { ChangeFeed } from "./change-feed.ts";
import type { SessionDeletion } from "./deletion.ts";
import type { LostLogs } from "./lost-logs.ts";
import {
  expiryOf,
  isCompleted,
  needsWorker,
  nextLook,
  type Observed,
  planRequests,
  planStatus,
  SETTLE_MS,
} from "./plan.ts";
import { pinnedPool, type ReferencesDeps, vaultsOf, watchVaults } from "./references.ts";
import { referencesNotChecked, vaultsHeld } from "./resolve.ts";
import { isTrouble } from "./sandbox-wait.ts";
import { type Pinned, pinnedOf, type SessionMemory } from "./session-memory.ts";
import { sessionRefOf } from "./session-ref.ts";
import type { SessionStart } from "./session-start.ts";
import type { StatusWriter } from "./status-writer.ts";

export interface AgentSessionControllerDeps extends ReferencesDeps {
  client: Pick<KubeClient, "get" | "delete">;
  log: Pick<OperatorLog, "emitEvents" | "statusOf" | "snapshotOf">;
  changes: ChangeFeed;
  lostLogs: Pick<LostLogs, "watch">;
  waits: Pick<SandboxWaits, "of" | "watch">;
  outage: Pick<StoreOutage, "lasts" | "watch">;
  start: SessionStart;
  deletion: SessionDeletion;
  status: StatusWriter;
  memory: SessionMemory;
  clock: Pick<Clock, "now">;
  rng: Rng;
}

const STORE_DOWN_RETRY_MS = 5_000;
const STORE_BACK_MS = 60_000;

/**
 * AgentSession: references → frozen snapshot → log, once; then `operatingMode`, status at
 * transitions, deadline and TTL (docs/architecture.md#flows,
 * docs/design/operations.md#status-of-a-session). `spec` is never written.
 */
export class AgentSessionController implements Controller {
  readonly name = "agent-session";
  readonly concurrency = 16;
  readonly watches: readonly Watch[];
  readonly #deps: AgentSessionControllerDeps;

  constructor(deps: AgentSessionControllerDeps) {
    this.#deps = deps;
    const { sessions } = deps;
    const waitingFor = (index: string, value: string, waits = hasNoLog) =>
      sessions.byIndex(index, value).filter(waits).map(objectKey);
    this.watches = [
      watchObjects(sessions),
      watchMapped(deps.agents, (_agent, key) => waitingFor("agent", key)),
      watchMapped(deps.templates, (_template, key) => waitingFor("template", key)),
      watchVaults(deps),
      watchMapped(deps.pools, (_pool, key) => waitingFor("pool", refOf(key).name, mayNeedWorker)),
      deps.changes.watch,
      deps.lostLogs.watch,
      deps.waits.watch,
      deps.outage.watch,
    ];
  }

  async reconcile(key: string, context: PassContext): Promise<Outcome> {
    const session = this.#deps.sessions.get(key);
    if (session === undefined) {
      this.#deps.memory.forget(key);
      return settled;
    }
    if (isBeingDeleted(session)) return this.#deps.deletion.advance(session, context.signal);
    try {
      return await this.#advance(session, context);
    } catch (error) {
      if (!isStoreDown(error)) throw error;
      return this.#storeDown(session, error);
    }
  }

  async #advance(session: AgentSession, context: PassContext): Promise<Outcome> {
    const { log, start } = this.#deps;
    const pinned = sessionRefOf(session);
    const found = pinned === undefined ? null : (await log.statusOf([pinned]))[0];
    if (pinned !== undefined && found) return this.#follow(session, pinned, found);
    if (expiryOf(session) <= this.#deps.clock.now()) return this.#expire(session);
    if (session.status?.sessionId !== undefined) return this.#lost(session);
    const begun = await start.begin(session, context);
    if ("kind" in begun) return begun;
    const made = (await log.statusOf([begun]))[0];
    return made ? this.#follow(session, begun, made) : waiting("Progressing", 1_000);
  }

  /** There is a log: make it go as asked, and write down how it is. */
  async #follow(session: AgentSession, ref: SessionRef, found: SessionState): Promise<Outcome> {
    const { log, clock, changes, rng, status } = this.#deps;
    let state = found;
    const pinned = await this.#pinnedOf(session, ref);
    for (const request of planRequests(this.#observe(session, pinned, state))) {
      const event = { id: rng.id("sevt"), type: request.type, data: request.data };
      await log.emitEvents(ref, [event], { idempotencyKey: request.idempotencyKey });
      state = (await log.statusOf([ref]))[0] ?? state;
    }
    const observed = this.#observe(session, pinned, state);
    const change = changes.openChange(ref.id);
    const plan = planStatus(observed);
    if (plan.kind === "write") await status.write(session, plan.status, plan.wanted);
    if (plan.kind !== "later" && change !== undefined && change.seq <= state.seq) {
      await changes.written(change);
    }
    if (plan.kind === "unchanged" && expiryOf(session) <= observed.now) {
      return this.#expire(session);
    }
    const next = nextLook(observed, plan);
    return next === undefined ? settled : settledFor(next - clock.now());
  }

  #observe(session: AgentSession, pinned: Pinned, log: SessionState): Observed {
    const { changes, clock, memory, waits } = this.#deps;
    const change = changes.openChange(pinned.sessionId);
    const describesNow = change?.status === log.status && change.why === log.why;
    const remembered = memory.of(session);
    const pool = pinnedPool(this.#deps, pinned.pool);
    const scaledToZero = pool?.spec.replicas === 0;
    const hasWorker = !scaledToZero && (pool?.status?.readyReplicas ?? 0) > 0;
    const attended = hasWorker || !needsWorker(session, log);
    remembered.unattendedSince = attended ? undefined : (remembered.unattendedSince ?? clock.now());
    const vaults = vaultsHeld(session, vaultsOf(this.#deps, session));
    const text = JSON.stringify(vaults);
    if (remembered.vaults?.text !== text) remembered.vaults = { text, since: clock.now() };
    const sandboxWait = waits.of(pinned.sessionId);
    const troubled = sandboxWait !== undefined && isTrouble(sandboxWait);
    remembered.sandboxFineSince = troubled
      ? undefined
      : (remembered.sandboxFineSince ?? clock.now());
    return {
      session,
      now: clock.now(),
      sessionId: pinned.sessionId,
      log,
      since: describesNow ? change.ts : log.lts,
      createdAt: remembered.createdAt,
      lastWriteAt: remembered.lastWriteAt,
      resolved: pinned.resolved,
      references: pinned.references.map((one) => (one.type === vaults.type ? vaults : one)),
      vaultsSince: remembered.vaults.since,
      asksForApproval: pinned.asksForApproval,
      unattendedSince: remembered.unattendedSince,
      scaledToZero,
      installNamespace: this.#deps.installNamespace,
      poolPresent: pool !== undefined,
      sandboxWait,
      sandboxFineSince: remembered.sandboxFineSince,
    };
  }

  async #pinnedOf(session: AgentSession, ref: SessionRef): Promise<Pinned> {
    const remembered = this.#deps.memory.of(session);
    if (remembered.pinned?.sessionId === ref.id) return remembered.pinned;
    const snapshot = await this.#deps.log.snapshotOf(ref);
    if (snapshot === null) {
      throw new AppError("INTERNAL", `session ${ref.id} has a log and no snapshot`);
    }
    if (snapshot.object?.uid !== uidOf(session)) throw notItsLog(session, ref);
    remembered.pinned = pinnedOf(snapshot);
    return remembered.pinned;
  }

  /** TTL: the object goes, and by its finalizer its pods and its log. */
  async #expire(session: AgentSession): Promise<Outcome> {
    const { uid, resourceVersion } = session.metadata;
    await this.#deps.client.delete(agentSessions, session.metadata, {
      ...(uid === undefined ? {} : { uid }),
      ...(resourceVersion === undefined ? {} : { resourceVersion }),
      propagation: "Background",
    });
    return settled;
  }

  /** The store lost it: making a new log in silence would repeat the work. */
  async #lost(session: AgentSession): Promise<Outcome> {
    const id = session.status?.sessionId ?? "";
    const message = `the log of session ${id} is not in Redis any more: restore it from a backup, or delete this AgentSession and create it again`;
    await this.#deps.status.writeWithoutLog(session, {
      state: "Failed",
      conditions: notWithoutHelp("LogLost", message),
      final: true,
    });
    return stalled("LogLost", message);
  }

  async #storeDown(session: AgentSession, error: unknown): Promise<Outcome> {
    const message = `the session store cannot be used: ${describeError(error)}; the session goes on when it can`;
    const age = this.#deps.clock.now() - Date.parse(session.metadata.creationTimestamp ?? "");
    const unseen = (session.status?.observedGeneration ?? -1) < 0;
    const heldUp = this.#deps.outage.lasts() && isHeldUp(session);
    const said = findCondition(session.status?.conditions, "Ready")?.reason === "RedisUnreachable";
    if (heldUp && !said) {
      await this.#deps.status.writeWithoutLog(session, {
        state: session.status?.state ?? "Pending",
        conditions: inProgress("RedisUnreachable", message),
        final: false,
      });
    } else if (unseen && age >= SETTLE_MS) {
      await this.#deps.status.writeWithoutLog(session, {
        state: "Pending",
        conditions: [
          ...inProgress("RedisUnreachable", message),
          condition("Completed", "False", "Progressing"),
          ...referencesNotChecked(),
        ],
        final: false,
      });
    }
    // Who has said it is woken when the store is back.
    const retryMs = said ? STORE_BACK_MS : STORE_DOWN_RETRY_MS;
    return waiting("RedisUnreachable", retryMs, message);
  }
}

/** The id is derived from the UID, so only a store that somebody wrote to by hand can say so. */
function notItsLog(session: AgentSession, ref: SessionRef): AppError {
  return new AppError(
    "INTERNAL",
    `the log of session ${ref.id} was not made for AgentSession "${session.metadata.name}" with UID ${uidOf(session)}; it is left alone`,
  );
}

/** What it refers to matters until it is pinned. */
function hasNoLog({ status }: AgentSession): boolean {
  return status?.sessionId === undefined;
}

/** The workers of its pool matter until it is over or rests. */
function mayNeedWorker(session: AgentSession): boolean {
  const { status, spec } = session;
  return (
    hasNoLog(session) ||
    status?.state === "Pending" ||
    status?.state === "Running" ||
    (spec.operatingMode === "Stopped" && !isCompleted(session))
  );
}

function isStoreDown(error: unknown): boolean {
  if (isKubeError(error)) return false;
  const code = codeOf(error) ?? "";
  return code.startsWith("REDIS_") || code === "UNAVAILABLE" || code === "TIMEOUT";
}
