import { describe, expect, it } from "@jest/globals";
import { anInstall } from "../../../test/builders/install.ts";
import { aPool } from "../../../test/builders/kinds.ts";
import { aContainer, aSandboxPod } from "../../../test/builders/pods.ts";
import { AppError } from "../../runtime/errors.ts";
import type { Deployment, Pod } from "../kinds.ts";
import { type Observed, planStatus, storeProblemOf } from "./plan.ts";
import { buildDeployment } from "./resources.ts";

const pool = aPool();

function aDeployment(ready: number, reported: object[] = []): Deployment {
  const built = buildDeployment({ name: "default", code: "pool" }, pool.spec, anInstall());
  built.metadata.generation = 1;
  const counts = { replicas: 2, readyReplicas: ready, updatedReplicas: 2 };
  return Object.assign(built, {
    status: { observedGeneration: 1, ...counts, conditions: reported },
  });
}

const healthy: Observed = {
  pool,
  now: 0,
  code: "pool",
  deployment: aDeployment(2),
  pods: [],
  vault: undefined,
};

function conditions(changes: Partial<Observed>): string {
  const status = planStatus({ ...healthy, ...changes });
  const show = (type: string) => {
    const found = status.conditions?.find((one) => one.type === type);
    return `${type}=${found?.status}/${found?.reason}`;
  };
  return `${show("Ready")} ${show("Stalled").split("/")[0]}`;
}

const stuck = (reason: string) => [
  aSandboxPod({
    containerStatuses: [aContainer({ ready: false, state: { waiting: { reason } } })],
  }),
];

function leaving(pod: Pod): Pod {
  return { ...pod, metadata: { ...pod.metadata, deletionTimestamp: "2026-01-01T00:00:00Z" } };
}

describe("a pool's status", () => {
  it.each([
    { name: "all ready", given: {}, want: "Ready=True/Available Stalled=False" },
    {
      name: "rolling",
      given: { deployment: aDeployment(1) },
      want: "Ready=False/Progressing Stalled=False",
    },
    {
      name: "not made",
      given: { deployment: undefined },
      want: "Ready=False/Progressing Stalled=False",
    },
    {
      name: "an image that cannot be pulled",
      given: { deployment: aDeployment(0), pods: stuck("ImagePullBackOff") },
      want: "Ready=False/ImagePullFailed Stalled=True",
    },
    {
      name: "a worker that ends again and again, as while Redis is down",
      given: { deployment: aDeployment(0), pods: stuck("CrashLoopBackOff") },
      want: "Ready=False/CrashLoop Stalled=False",
    },
    {
      name: "a pod that could not start and is being taken away",
      given: { deployment: aDeployment(1), pods: stuck("ImagePullBackOff").map(leaving) },
      want: "Ready=False/Progressing Stalled=False",
    },
    {
      name: "a quota",
      given: {
        deployment: aDeployment(0, [
          { type: "ReplicaFailure", status: "True", message: "exceeded quota: x" },
        ]),
      },
      want: "Ready=False/QuotaExceeded Stalled=True",
    },
    {
      name: "a store that evicts",
      given: {
        storeProblem: storeProblemOf(
          new AppError("REDIS_EVICTS", "maxmemory-policy is allkeys-lru"),
        ),
      },
      want: "Ready=False/RedisEvicts Stalled=False",
    },
  ])("$name: $want", ({ given, want }) => {
    expect(conditions(given)).toBe(want);
  });

  it.each([
    { access: undefined, want: "True/NotRequired" },
    { access: "session" as const, want: "True/SessionIdentity" },
    { access: "pod" as const, want: "False/PodIdentity" },
  ])("says as whom a session's credentials are read: $want", ({ access, want }) => {
    const vault = access && { address: "https://vault:8200", sessionIdentity: access };
    const { conditions: all } = planStatus({ ...healthy, vault });

    const found = all?.find(({ type }) => type === "VaultIdentity");
    expect(`${found?.status}/${found?.reason}`).toBe(want);
  });

  it.each([
    ["REDIS_UNREACHABLE", "RedisUnreachable"],
    ["REDIS_AUTH_FAILED", "RedisAuthFailed"],
    ["REDIS_DURABILITY_NOT_KEPT", "DurabilityNotKept"],
    ["UNAVAILABLE", "RedisUnreachable"],
  ] as const)("error %s is reason %s", (code, reason) => {
    expect(storeProblemOf(new AppError(code, "why"))).toEqual({ reason, message: "why" });
  });
});
