import { isDeepStrictEqual } from "node:util";
import type { AgentSessionStatus } from "../../api/agent-session.ts";
import { uidOf } from "../../kube/objects.ts";
import { mergeConditions, rfc3339 } from "../../kube/status.ts";
import type { SessionEventData } from "../../protocol/session-event.ts";
import type { SessionState } from "../../sessions/session-log.ts";
import { notWithoutHelp, type Wanted } from "../conditions.ts";
import type { AgentSession } from "../kinds.ts";
import type { SandboxWait } from "../sandbox-waits.ts";
import type { ResolvedNames } from "./resolve.ts";
import { showsFrom, troubleSaid, withSandboxWait } from "./sandbox-wait.ts";
import { statusFor, type WantedStatus } from "./status-of.ts";

/**
 * What one pass over a session with a log has to do. Pure: nearly all tests of this controller are
 * tables over these functions. Times are epoch ms.
 */

/**
 * A state that lasted less is not written (docs/design/operations.md#write-budget, write budget).
 */
export const SETTLE_MS = 5_000;
/** Between two status writes of one session, unless the second says Completed, Stalled or as asked. */
const WRITE_GAP_MS = 30_000;
/** A session whose pool has had no worker for this long needs a person; a rolling update is shorter. */
export const NO_HARNESS_MS = 120_000;

export interface Observed {
  session: AgentSession;
  now: number;
  sessionId: string;
  log: SessionState;
  /** When the log came into this state. */
  since: number;
  /** When the log was made; undefined when another process made it. */
  createdAt?: number | undefined;
  /** When this process last wrote the session's status. */
  lastWriteAt?: number | undefined;
  resolved: ResolvedNames;
  references: Wanted[];
  asksForApproval: boolean;
  /** Since when this process sees the session's vaults as `references` say. */
  vaultsSince?: number | undefined;
  /** Since when this process sees that the session needs a worker and its pool has none ready. */
  unattendedSince?: number | undefined;
  /** What keeps its sandbox from it. */
  sandboxWait?: SandboxWait | undefined;
  /** Since when this process knows of no trouble with its sandboxes. */
  sandboxFineSince?: number | undefined;
  /** The pool is scaled to zero: no worker comes by itself. */
  scaledToZero?: boolean | undefined;
  /** Namespace of the pool. */
  installNamespace: string;
  /** The pool that the session was made for is there. One made again by that name is another. */
  poolPresent: boolean;
}

export interface ControlRequest {
  type: "session.suspend_requested" | "session.resume_requested" | "session.stop_requested";
  data: Record<string, never> | SessionEventData<"session.stop_requested">;
  /** The same for the same intent, so that a repeated pass appends nothing. */
  idempotencyKey: string;
}

/** What to append to the log so that the session comes to be as `spec` asks. */
export function planRequests({ session, log, now }: Observed): ControlRequest[] {
  if (log.status === "terminated") return [];
  const uid = uidOf(session);
  const { generation = 0 } = session.metadata;
  const mode = session.spec.operatingMode;
  const request = (
    type: ControlRequest["type"],
    data: ControlRequest["data"] = {},
    key = `${uid}:${mode}:${generation}`,
  ): ControlRequest => ({ type, data, idempotencyKey: key });

  const stop = (reason: "stop" | "deadline", key: string): ControlRequest =>
    request("session.stop_requested", { reason }, `${key}${putAside(log)}`);

  if (mode === "Stopped") return [stop("stop", `${uid}:${mode}:${generation}`)];
  if (deadlineOf(session) <= now && !isFinished(log)) {
    return [stop("deadline", `${uid}:deadline`)];
  }
  if (mode === "Suspended") {
    const done = log.status === "suspended" || log.status === "quarantined";
    return done ? [] : [request("session.suspend_requested")];
  }
  // A quarantined session is lifted by the way from Suspended to Running, never by being Running.
  const wasSuspended = session.status?.state === "Suspended";
  const resume = log.status === "suspended" || (log.status === "quarantined" && wasSuspended);
  return resume ? [request("session.resume_requested")] : [];
}

/**
 * A request that a worker had before the session was put aside takes effect on nobody any more: it
 * is made anew, once for each time that this happens. A resume is not: one act of a person lifts once.
 */
function putAside(log: SessionState): string {
  return log.status === "quarantined" ? `:quarantined:${log.epoch}` : "";
}

/** Epoch ms at which `activeDeadlineSeconds` have passed; infinite when there is none. */
export function deadlineOf(session: AgentSession): number {
  const seconds = session.spec.activeDeadlineSeconds;
  const created = Date.parse(session.metadata.creationTimestamp ?? "");
  return seconds === undefined ? Number.POSITIVE_INFINITY : created + seconds * 1000;
}

/** Its work is done: the deadline is for work that goes on. */
function isFinished(log: SessionState): boolean {
  return log.status === "idle" && (log.why === "end_turn" || log.why === "interrupted");
}

export type StatusPlan =
  | { kind: "unchanged" }
  | { kind: "write"; status: AgentSessionStatus; wanted: WantedStatus }
  /** Different, but not to be written before this time. */
  | { kind: "later"; at: number };

export function planStatus(observed: Observed): StatusPlan {
  const { session, now, log } = observed;
  const wanted = wantedStatus(observed);
  const status = buildStatus(observed, wanted);
  if (isDeepStrictEqual(withoutUndefined(session.status ?? {}), withoutUndefined(status))) {
    return { kind: "unchanged" };
  }
  const written = session.status?.observedGeneration ?? -1;
  const specChanged = written >= 0 && written !== session.metadata.generation;
  if (wanted.final || specChanged) return { kind: "write", status, wanted };
  if (statusOf("VaultsResolved", session.status) !== statusOf("VaultsResolved", status)) {
    // Deleted and made again, as by `kubectl replace --force`, is over by then.
    const from = Math.max(observed.since, observed.vaultsSince ?? 0) + SETTLE_MS;
    return from <= now ? { kind: "write", status, wanted } : { kind: "later", at: from };
  }
  const before = troubleSaid(session.status);
  const trouble = troubleSaid(status);
  if (trouble !== undefined && trouble !== before) return { kind: "write", status, wanted };
  if (trouble === undefined && before !== undefined && log.status === "running") {
    const from = troubleOverFrom(observed);
    return from <= now ? { kind: "write", status, wanted } : { kind: "later", at: from };
  }
  const gap = observed.lastWriteAt === undefined ? 0 : observed.lastWriteAt + WRITE_GAP_MS;
  const at = Math.max(observed.since + SETTLE_MS, gap);
  return at <= now ? { kind: "write", status, wanted } : { kind: "later", at };
}

function statusOf(type: string, status: AgentSessionStatus | undefined): string | undefined {
  return status?.conditions?.find((one) => one.type === type)?.status;
}

function wantedStatus(observed: Observed): WantedStatus {
  const { session, log } = observed;
  const wanted = statusFor({
    log,
    mode: session.spec.operatingMode,
    asksForApproval: observed.asksForApproval,
    wasCompleted: isCompleted(session),
  });
  if (noHarnessFrom(observed) > observed.now) {
    const { sandboxWait } = observed;
    const waits = sandboxWait !== undefined && sandboxWaitFrom(observed) <= observed.now;
    return waits ? withSandboxWait(wanted, sandboxWait) : wanted;
  }
  const pool = observed.resolved.pool;
  const message = observed.poolPresent
    ? noWorker(observed, pool ?? "default")
    : `harness pool "${pool}", which the session was made for, is deleted, and no other can take the session up; delete this AgentSession and create it again`;
  return {
    state: "Pending",
    conditions: [
      ...notWithoutHelp("NoHarness", message),
      ...wanted.conditions.filter(({ type }) => type === "Completed"),
    ],
    final: true,
  };
}

function noWorker({ installNamespace, scaledToZero }: Observed, pool: string): string {
  if (scaledToZero === true) {
    return `harness pool "${pool}" is scaled to zero, so no worker takes the session up; run: kubectl scale harnesspool ${pool} -n ${installNamespace} --replicas=1`;
  }
  return `no worker of harness pool "${pool}" is ready; see why with: kubectl describe harnesspool ${pool} -n ${installNamespace}`;
}

/** Epoch ms from which its wait for a sandbox is to be shown; infinite when it does not wait. */
function sandboxWaitFrom({ session, log, sandboxWait }: Observed): number {
  const runs = log.status === "running" && session.spec.operatingMode === "Running";
  return runs && sandboxWait !== undefined ? showsFrom(sandboxWait) : Number.POSITIVE_INFINITY;
}

/** What the operator's previous process said stays until this one has had time to find it again. */
function troubleOverFrom({ sandboxFineSince, sandboxWait, now }: Observed): number {
  if (sandboxFineSince !== undefined) return sandboxFineSince + SETTLE_MS;
  return sandboxWait === undefined ? now : showsFrom(sandboxWait);
}

/** Epoch ms from which the session counts as without workers; infinite when it needs none, or has one. */
function noHarnessFrom({ session, unattendedSince, scaledToZero }: Observed): number {
  if (unattendedSince === undefined) return Number.POSITIVE_INFINITY;
  if (scaledToZero === true) return unattendedSince;
  // Said already, maybe by the operator's previous process: it stays true until a worker is back.
  const said = session.status?.conditions?.some(
    ({ type, status, reason }) => type === "Stalled" && status === "True" && reason === "NoHarness",
  );
  return said === true ? unattendedSince : unattendedSince + NO_HARNESS_MS;
}

/**
 * The session does not go on, or does not end as asked, unless some worker works. A lease proves
 * nothing: that of a worker that died stands until another takes the session over.
 */
export function needsWorker({ spec }: AgentSession, { status, why }: SessionState): boolean {
  if (status === "created" || status === "running") return true;
  return status === "idle" && (why === "" || spec.operatingMode === "Stopped");
}

function buildStatus(observed: Observed, wanted: WantedStatus): AgentSessionStatus {
  const { session, sessionId, resolved, since, now } = observed;
  const previous = session.status;
  const completed = wanted.conditions.some(
    ({ type, status }) => type === "Completed" && status === "True",
  );
  const completionTime =
    completed && !isCompleted(session) ? rfc3339(since) : previous?.completionTime;
  return {
    observedGeneration: session.metadata.generation,
    state: wanted.state,
    sessionId,
    resolved,
    startTime: previous?.startTime ?? rfc3339(observed.createdAt ?? since),
    completionTime,
    conditions: mergedConditions(session, [...wanted.conditions, ...observed.references], now),
  };
}

/** Our conditions with times and generation, in the shape the CRD stores. */
export function mergedConditions(
  session: AgentSession,
  wanted: Wanted[],
  nowMs: number,
): NonNullable<AgentSessionStatus["conditions"]> {
  const { generation = 0 } = session.metadata;
  return mergeConditions(session.status?.conditions, wanted, { generation, nowMs }).map(
    (condition) => ({ ...condition, observedGeneration: condition.observedGeneration ?? 0 }),
  );
}

export function isCompleted(session: AgentSession): boolean {
  return (
    session.status?.conditions?.some(
      ({ type, status }) => type === "Completed" && status === "True",
    ) ?? false
  );
}

/** Epoch ms at which the object is to be deleted; infinite when never. */
export function expiryOf(session: AgentSession): number {
  const seconds = session.spec.ttlSecondsAfterFinished;
  const completed = Date.parse(session.status?.completionTime ?? "");
  if (seconds === undefined || Number.isNaN(completed) || !isCompleted(session)) {
    return Number.POSITIVE_INFINITY;
  }
  return completed + seconds * 1000;
}

/** The earliest time at which a pass may find something else to do; undefined when only a change can. */
export function nextLook(observed: Observed, status: StatusPlan): number | undefined {
  const times = [expiryOf(observed.session)];
  if (observed.log.status !== "terminated" && !isFinished(observed.log)) {
    times.push(deadlineOf(observed.session));
  }
  if (status.kind === "later") times.push(status.at);
  times.push(noHarnessFrom(observed), sandboxWaitFrom(observed));
  const next = Math.min(...times.filter((time) => time > observed.now));
  return Number.isFinite(next) ? next : undefined;
}

function withoutUndefined(value: object): object {
  return Object.fromEntries(Object.entries(value).filter(([, member]) => member !== undefined));
}
