import { describe, expect, it } from "@jest/globals";
import { aSession, CREATED_MS } from "../../../test/builders/kinds.ts";
import { aSnapshot } from "../../../test/builders/snapshot.ts";
import type { SessionState } from "../../sessions/session-log.ts";
import type { AgentSession } from "../kinds.ts";
import type { SandboxWait } from "../sandbox-waits.ts";
import {
  NO_HARNESS_MS,
  needsWorker,
  nextLook,
  type Observed,
  planRequests,
  planStatus,
} from "./plan.ts";
import { conditionsOf, namesIn } from "./resolve.ts";

const S = 1000;
const NOW = CREATED_MS + 60 * S;

function observed(changes: Partial<Observed> & { log?: SessionState } = {}): Observed {
  return {
    session: aSession(),
    now: NOW,
    sessionId: "sesn_1",
    log: log("running"),
    since: NOW - 10 * S,
    resolved: namesIn(aSnapshot()),
    references: conditionsOf(aSnapshot()),
    asksForApproval: false,
    poolPresent: true,
    installNamespace: "drover",
    ...changes,
  };
}

function log(status: SessionState["status"], why = "", leased = false): SessionState {
  return { status, why, leased, epoch: 1, seq: 3, lts: NOW - 10 * S };
}

/** The session as it is after the planned status has been written. */
function written(given: Observed): AgentSession {
  const plan = planStatus(given);
  if (plan.kind !== "write") throw new Error(`expected a write, got ${plan.kind}`);
  return { ...given.session, status: plan.status };
}

function ready(given: Observed): string {
  const conditions = written(given).status?.conditions ?? [];
  const show = (type: string) => {
    const found = conditions.find((one) => one.type === type);
    return `${found?.status}/${found?.reason}`;
  };
  return `${show("Ready")} ${show("Stalled").split("/")[0]} ${show("Completed")}`;
}

describe("status", () => {
  it.each([
    { log: log("created"), state: "Pending", says: "False/Pending False False/Progressing" },
    { log: log("running"), state: "Running", says: "True/Running False False/Progressing" },
    { log: log("idle", "end_turn"), state: "Idle", says: "True/Idle False True/EndTurn" },
    { log: log("idle", "interrupted"), state: "Idle", says: "True/Idle False True/Interrupted" },
    {
      log: log("idle", "requires_action"),
      state: "WaitingForClientTool",
      says: "True/WaitingForClientTool False False/Progressing",
    },
    {
      log: log("idle", "retries_exhausted"),
      state: "Failed",
      says: "False/Failed True True/Failed",
    },
    { log: log("idle", "refusal"), state: "Failed", says: "False/Failed True True/Failed" },
    { log: log("idle", ""), state: "Pending", says: "False/Pending False False/Progressing" },
    { log: log("terminated", "stop"), state: "Stopped", says: "True/Stopped False True/Stopped" },
    {
      log: log("terminated", "deadline"),
      state: "Failed",
      says: "False/DeadlineExceeded True True/DeadlineExceeded",
    },
    {
      log: log("quarantined", "takeovers"),
      state: "Quarantined",
      says: "False/Quarantined True False/Progressing",
    },
  ])("log $log.status/$log.why is $state: $says", ({ log: state, state: name, says }) => {
    const given = observed({ log: state });

    expect(written(given).status?.state).toBe(name);
    expect(ready(given)).toBe(says);
  });

  it.each([
    { mode: "Suspended", log: log("running"), says: "False/Progressing False False/Progressing" },
    { mode: "Suspended", log: log("suspended"), says: "True/Suspended False False/Progressing" },
    { mode: "Running", log: log("suspended"), says: "False/Progressing False False/Progressing" },
    { mode: "Stopped", log: log("running"), says: "False/Progressing False False/Progressing" },
    { mode: "Suspended", log: log("quarantined"), says: "True/Suspended False False/Progressing" },
    { mode: "Stopped", log: log("quarantined"), says: "False/Quarantined True False/Progressing" },
  ])("operatingMode $mode with log $log.status is $says", ({ mode, log: state, says }) => {
    expect(ready(observed({ session: aSession({ operatingMode: mode }), log: state }))).toBe(says);
  });

  it("has all conditions in the first write, each for this generation", () => {
    const status = written(observed()).status;

    expect(status?.conditions?.map(({ type }) => type).toSorted()).toEqual([
      "AgentResolved",
      "Completed",
      "PoolResolved",
      "Ready",
      "Reconciling",
      "Stalled",
      "TemplateResolved",
      "VaultsResolved",
    ]);
    expect(status?.conditions?.every(({ observedGeneration }) => observedGeneration === 1)).toBe(
      true,
    );
  });

  it("a state that has lasted less than 5 s is not written yet", () => {
    const given = observed({ since: NOW - 2 * S });

    expect(planStatus(given)).toEqual({ kind: "later", at: NOW + 3 * S });
    expect(nextLook(given, planStatus(given))).toBe(NOW + 3 * S);
  });

  it("a completed session is written at once", () => {
    expect(planStatus(observed({ log: log("idle", "end_turn"), since: NOW }))).toMatchObject({
      kind: "write",
    });
  });

  it("two writes of states that go on are 30 s apart", () => {
    const session = written(observed({ log: log("created"), since: NOW - 6 * S }));
    const given = observed({ session, lastWriteAt: NOW - 10 * S });

    expect(planStatus(given)).toEqual({ kind: "later", at: NOW + 20 * S });
  });

  it("a changed spec is answered at once", () => {
    const session = written(observed());
    const changed = { ...session, metadata: { ...session.metadata, generation: 2 } };

    const plan = planStatus(observed({ session: changed, lastWriteAt: NOW, since: NOW }));

    expect(plan).toMatchObject({ kind: "write", status: { observedGeneration: 2 } });
  });

  it("nothing is written twice", () => {
    const session = written(observed());

    expect(planStatus(observed({ session, now: NOW + 99 * S }))).toEqual({ kind: "unchanged" });
  });

  it("a message after completion makes it False and Resumed", () => {
    const session = written(observed({ log: log("idle", "end_turn") }));

    expect(ready(observed({ session, log: log("running") }))).toContain("False/Resumed");
  });

  describe("that waits for a sandbox", () => {
    const full = "exceeded quota: q, used: pods=1, limited: pods=1";
    const wait = (ago: number, reason: SandboxWait["reason"] = "QuotaExceeded") => ({
      sandboxWait: { reason, message: full, since: NOW - ago },
      lastWriteAt: NOW - 1 * S,
    });
    const message = (session: AgentSession) =>
      session.status?.conditions?.find(({ type }) => type === "Ready")?.message;
    const said = () =>
      written(observed({ ...wait(4 * S), session: written(observed({ log: log("created") })) }));

    it("says so in the cluster's own words within 5 s, and its last write does not delay that", () => {
      const session = written(observed());
      const given = observed({ session, ...wait(4 * S) });

      expect(ready(given)).toBe("False/QuotaExceeded False False/Progressing");
      expect(message(written(given))).toBe(`waits for its sandbox: ${full}`);
    });

    it("writes nothing of a wait that is shorter, and looks again when it is not", () => {
      const given = observed({ session: written(observed()), ...wait(3 * S) });

      expect(planStatus(given)).toEqual({ kind: "unchanged" });
      expect(nextLook(given, planStatus(given))).toBe(NOW + 1 * S);
    });

    it("stays Ready while the sandbox is only slow, with a message", () => {
      const given = observed(wait(5 * S, "StartDeadlineExceeded"));

      expect(ready({ ...given, lastWriteAt: NOW - 30 * S })).toContain("True/Running");
      expect(planStatus({ ...given, session: written(observed()) }).kind).toBe("later");
    });

    it("says changed words no sooner than any other change", () => {
      const given = observed({ session: said(), ...wait(9 * S) });
      const sandboxWait = { ...wait(9 * S).sandboxWait, message: "exceeded quota: r" };

      expect(planStatus({ ...given, sandboxWait })).toEqual({ kind: "later", at: NOW + 29 * S });
    });

    it("heals by itself five seconds after the trouble is over", () => {
      const over = (ago: number) =>
        observed({ session: said(), lastWriteAt: NOW - 6 * S, sandboxFineSince: NOW - ago });

      expect(planStatus(over(2 * S))).toEqual({ kind: "later", at: NOW + 3 * S });
      expect(ready(over(5 * S))).toContain("True/Running");
    });

    it("keeps saying it while a new process has not seen the same trouble for long enough", () => {
      const given = observed({ session: said(), ...wait(1 * S) });

      expect(planStatus(given)).toEqual({ kind: "later", at: NOW + 3 * S });
    });

    it.each([
      { log: log("idle", "end_turn"), says: "True/Idle" },
      { log: log("suspended"), says: "False/Progressing" },
    ])("does not say it when the log is $log.status: $says", ({ log: state, says }) => {
      expect(ready(observed({ ...wait(60 * S), log: state, lastWriteAt: 0 }))).toContain(says);
    });
  });

  describe("without a worker in its pool", () => {
    const ago = (ms: number) => ({ unattendedSince: NOW - ms });

    it.each([
      { log: log("created") },
      { log: log("running") },
      { log: log("running", "", true) },
      { log: log("idle", "") },
      { log: log("idle", "requires_action"), mode: "Stopped" },
      { log: log("running", "", true), mode: "Suspended" },
    ])(
      "a session that is $log.status, leased $log.leased, mode $mode, stalls after two minutes",
      ({ log: state, mode = "Running" }) => {
        const session = aSession({ operatingMode: mode });
        const late = observed({ session, log: state, ...ago(NO_HARNESS_MS) });
        const early = observed({ session, log: state, ...ago(NO_HARNESS_MS - 1) });

        expect(needsWorker(session, state)).toBe(true);
        expect(written(late).status?.state).toBe("Pending");
        expect(ready(late)).toMatch(/^False\/NoHarness True/);
        expect(ready(early)).not.toContain("NoHarness");
        expect(nextLook(early, planStatus(early))).toBe(NOW + 1);
      },
    );

    it.each([
      { log: log("idle", "end_turn") },
      { log: log("idle", "requires_action") },
      { log: log("suspended"), mode: "Suspended" },
      { log: log("quarantined"), mode: "Stopped" },
      { log: log("terminated", "stop"), mode: "Stopped" },
    ])("a session that is $log.status/$log.why needs none", ({ log: state, mode = "Running" }) => {
      expect(needsWorker(aSession({ operatingMode: mode }), state)).toBe(false);
    });

    it("the session stays stalled for another operator process, and is Running when a worker is back", () => {
      const session = written(observed(ago(NO_HARNESS_MS)));

      expect(planStatus(observed({ session, ...ago(0) }))).toEqual({ kind: "unchanged" });
      expect(ready(observed({ session }))).toMatch(/^True\/Running False/);
    });

    it("a pool that is deleted is named as such", () => {
      const given = observed({ ...ago(NO_HARNESS_MS), poolPresent: false });

      expect(
        written(given).status?.conditions?.find(({ type }) => type === "Stalled"),
      ).toMatchObject({ reason: "NoHarness", message: expect.stringContaining("is deleted") });
    });
  });
});

describe("requests", () => {
  const kinds = (given: Observed) =>
    planRequests(given).map(
      ({ type, idempotencyKey }) => `${type.split(".")[1]} ${idempotencyKey}`,
    );
  const uid = "uid-of-team-a-hello";

  it.each([
    { mode: "Running", log: log("running"), want: [] },
    { mode: "Running", log: log("suspended"), want: [`resume_requested ${uid}:Running:1`] },
    { mode: "Suspended", log: log("running"), want: [`suspend_requested ${uid}:Suspended:1`] },
    { mode: "Suspended", log: log("suspended"), want: [] },
    { mode: "Suspended", log: log("quarantined"), want: [] },
    { mode: "Running", log: log("quarantined"), want: [] },
    { mode: "Stopped", log: log("idle", "end_turn"), want: [`stop_requested ${uid}:Stopped:1`] },
    { mode: "Stopped", log: log("terminated", "stop"), want: [] },
    {
      mode: "Stopped",
      log: log("quarantined"),
      want: [`stop_requested ${uid}:Stopped:1:quarantined:1`],
    },
  ])("operatingMode $mode with log $log.status asks for $want", ({ mode, log: state, want }) => {
    expect(kinds(observed({ session: aSession({ operatingMode: mode }), log: state }))).toEqual(
      want,
    );
  });

  it("a quarantined session is lifted by the way from Suspended to Running", () => {
    const suspended = written(
      observed({ session: aSession({ operatingMode: "Suspended" }), log: log("quarantined") }),
    );
    const running = {
      ...suspended,
      spec: { ...suspended.spec, operatingMode: "Running" as const },
    };

    expect(kinds(observed({ session: running, log: log("quarantined") }))).toEqual([
      `resume_requested ${uid}:Running:1`,
    ]);
  });

  it("the deadline stops work that goes on, once, and leaves finished work alone", () => {
    const session = aSession({ activeDeadlineSeconds: 60 });

    expect(planRequests(observed({ session }))).toEqual([
      {
        type: "session.stop_requested",
        data: { reason: "deadline" },
        idempotencyKey: `${uid}:deadline`,
      },
    ]);
    expect(kinds(observed({ session, now: NOW - 1 }))).toEqual([]);
    expect(kinds(observed({ session, log: log("idle", "end_turn") }))).toEqual([]);
    // The request above went to a worker that is dead.
    expect(kinds(observed({ session, log: log("quarantined") }))).toEqual([
      `stop_requested ${uid}:deadline:quarantined:1`,
    ]);
  });
});

describe("the next look", () => {
  it("is at the TTL of a completed session", () => {
    const session = written(
      observed({
        session: aSession({ ttlSecondsAfterFinished: 100 }),
        log: log("idle", "end_turn"),
      }),
    );
    const given = observed({ session, log: log("idle", "end_turn") });

    expect(nextLook(given, planStatus(given))).toBe(NOW - 10 * S + 100 * S);
  });

  it("is at the deadline of a running one, and nowhere when only a change can matter", () => {
    const given = observed({ session: written(observed()) });
    const dated = observed({ session: aSession({ activeDeadlineSeconds: 3600 }) });

    expect(nextLook(given, planStatus(given))).toBeUndefined();
    expect(nextLook(dated, planStatus(dated))).toBe(CREATED_MS + 3600 * S);
  });
});
