import { describe, expect, it } from "@jest/globals";
import { aContainer, aSandboxPod } from "../../../test/builders/pods.ts";
import type { SessionState } from "../../sessions/session-log.ts";
import type { Pod } from "../kinds.ts";
import { type Observed, planSandbox } from "./plan.ts";

const NOW = Date.parse("2026-01-01T00:00:10Z");
const provision = { requestId: "sevt_ask", firstSeen: NOW };
const readyPod = () => aSandboxPod({ podIP: "10.0.0.9", containerStatuses: [aContainer()] });

function terminating(): Pod {
  const pod = readyPod();
  return { ...pod, metadata: { ...pod.metadata, deletionTimestamp: "2026-01-01T00:00:15Z" } };
}

function observed(changes: Partial<Observed> = {}): Observed {
  return {
    now: NOW,
    sessionPresent: true,
    isolated: true,
    bound: true,
    limits: { startDeadlineMs: 120_000, idleTimeoutMs: 300_000 },
    log: log("running", true),
    ...changes,
  };
}

function log(status: SessionState["status"], leased = false, lts = NOW): SessionState {
  return { status, why: "", leased, epoch: 1, seq: 5, lts };
}

describe("a request", () => {
  it.each([
    { name: "is made", given: {}, want: { kind: "create" } },
    {
      name: "waits for the isolation of its namespace",
      given: { isolated: false },
      want: { kind: "wait" },
    },
    {
      name: "is refused when isolation does not come",
      given: { isolated: false, provision: { ...provision, firstSeen: NOW - 121_000 } },
      want: {
        kind: "refuse",
        trouble: {
          reason: "StartDeadlineExceeded",
          message: expect.stringContaining("isolation"),
        },
      },
    },
    {
      name: "is bound when the pod is ready",
      given: { pod: readyPod() },
      want: { kind: "bind", ip: "10.0.0.9" },
    },
    {
      name: "waits for a pod that starts, to the deadline counted from its creation",
      given: { pod: aSandboxPod() },
      want: { kind: "wait", retryAfterMs: 110_000 },
    },
    {
      name: "is refused with the best reason when the deadline passes",
      given: {
        pod: aSandboxPod({
          conditions: [{ type: "PodScheduled", status: "False", message: "0/3 nodes" }],
        }),
        now: NOW + 111_000,
      },
      want: {
        kind: "refuse",
        trouble: { reason: "Unschedulable", message: expect.stringContaining("waited 120 s") },
      },
    },
    {
      name: "is refused when its pod was deleted before it was ready",
      given: { vanished: aSandboxPod() },
      want: { kind: "refuse", trouble: { reason: "PodDeleted" } },
    },
    {
      name: "tries again while a quota is full",
      given: { hindrance: { reason: "QuotaExceeded" as const, message: "exceeded quota" } },
      want: { kind: "create" },
    },
    {
      name: "is refused with the quota's words when it stays full",
      given: {
        hindrance: { reason: "QuotaExceeded" as const, message: "exceeded quota" },
        provision: { ...provision, firstSeen: NOW - 121_000 },
      },
      want: { kind: "refuse", trouble: { reason: "QuotaExceeded" } },
    },
    {
      name: "of a session that is gone is dropped",
      given: { sessionPresent: false },
      want: { kind: "discard" },
    },
    {
      name: "that was given back meanwhile is dropped with its pod",
      given: { pod: readyPod(), release: { requestId: "sevt_release" } },
      want: { kind: "discard" },
    },
  ])("$name", ({ given, want }) => {
    expect(planSandbox(observed({ provision, ...given }))).toMatchObject(want);
  });
});

describe("a pod in use", () => {
  it.each([
    {
      name: "of a running session stays",
      given: {},
      want: { kind: "nothing", recheckAfterMs: 300_000 },
    },
    {
      name: "of an idle session stays until its time",
      given: { log: log("idle", false, NOW - 100_000) },
      want: { kind: "nothing", recheckAfterMs: 200_000 },
    },
    {
      name: "of a session idle for long enough is released",
      given: { log: log("idle", false, NOW - 300_000) },
      want: { kind: "release", at: 5 },
    },
    {
      name: "of a session that a worker holds is never released",
      given: { log: log("idle", true, NOW - 900_000) },
      want: { kind: "nothing" },
    },
    {
      name: "of a suspended session is kept",
      given: { log: log("suspended", false, NOW - 900_000) },
      want: { kind: "nothing" },
    },
    {
      name: "of a terminated session goes",
      given: { log: log("terminated") },
      want: { kind: "discard" },
    },
    { name: "whose log is gone goes", given: { log: null }, want: { kind: "discard" } },
    {
      name: "whose session is gone goes",
      given: { sessionPresent: false },
      want: { kind: "discard" },
    },
    {
      name: "that is deleted under it is lost",
      given: { pod: terminating() },
      want: { kind: "lose", trouble: { reason: "PodDeleted" } },
    },
    {
      name: "that was unbound and ends is nobody's loss",
      given: { pod: terminating(), bound: false },
      want: { kind: "nothing" },
    },
    {
      name: "that was unbound and ends is not released again",
      given: { pod: terminating(), bound: false, log: log("idle", false, NOW - 300_000) },
      want: { kind: "nothing" },
    },
    {
      name: "that was unbound and is gone is nobody's loss",
      given: { pod: undefined, vanished: readyPod(), bound: false },
      want: { kind: "discard" },
    },
    {
      name: "that was released and not yet deleted, when the process was killed, goes",
      given: { bound: false, log: log("idle", false, NOW - 300_000) },
      want: { kind: "release" },
    },
    {
      name: "that vanished is lost",
      given: { pod: undefined, vanished: readyPod() },
      want: { kind: "lose", trouble: { reason: "PodDeleted" } },
    },
  ])("$name", ({ given, want }) => {
    expect(planSandbox(observed({ pod: readyPod(), ...given }))).toMatchObject(want);
  });
});
