import { describe, expect, it } from "@jest/globals";
import { aSnapshot } from "../../../test/builders/snapshot.ts";
import { leaseTokenHash } from "../../protocol/tokens.ts";
import { decide, type IssueFacts } from "./decision.ts";

const snapshot = aSnapshot();
const facts: IssueFacts = {
  request: { sessionId: snapshot.sessionId, tenant: "team-a", leaseToken: "lease-1" },
  caller: { podUid: "pod-1", serviceAccount: "drover-system/drover-pool-default" },
  namespace: "drover-system",
  lease: { token: "lease-1", epoch: 7, owner: "pod-1", terminated: false },
  snapshot,
  binding: null,
};
const sandbox = { id: "sbx-1" };
const binding = {
  sessionId: snapshot.sessionId,
  tenant: "team-a",
  hand: "main",
  generation: 2,
  ip: "10.0.0.7",
};

describe("decide", () => {
  it("grants the holder of the lease a session token for its own pod and epoch", () => {
    expect(decide(facts)).toEqual({
      session: {
        sub: snapshot.sessionId,
        ten: "team-a",
        ver: snapshot.agent.revision,
        epoch: 7,
        ltk: leaseTokenHash("lease-1"),
        pod: "pod-1",
      },
    });
  });

  it("grants an execute token for a sandbox that is bound to the session", () => {
    const grant = decide({ ...facts, request: { ...facts.request, sandbox }, binding });

    expect(grant.execute).toEqual({
      sub: snapshot.sessionId,
      ten: "team-a",
      hand: "main",
      gen: 2,
      sbx: "sbx-1",
      epoch: 7,
    });
  });

  it.each<{ name: string; given: Partial<IssueFacts>; code: string; says: string }>([
    {
      name: "an unknown session",
      given: { lease: null },
      code: "SESSION_NOT_FOUND",
      says: "exist",
    },
    {
      name: "a session without snapshot",
      given: { snapshot: null },
      code: "SESSION_NOT_FOUND",
      says: "exist",
    },
    {
      name: "a snapshot of another tenant",
      given: { snapshot: aSnapshot({ tenant: "team-b" }) },
      code: "SESSION_NOT_FOUND",
      says: "exist",
    },
    {
      name: "a terminated session",
      given: { lease: { token: "lease-1", epoch: 7, owner: "pod-1", terminated: true } },
      code: "SESSION_CLOSED",
      says: "terminated",
    },
    {
      name: "another lease token",
      given: { lease: { token: "lease-2", epoch: 8, owner: "pod-1", terminated: false } },
      code: "SESSION_LEASE_LOST",
      says: "lease",
    },
    {
      name: "a session that nobody holds, even with an empty token shown",
      given: {
        request: { ...facts.request, leaseToken: "" },
        lease: { token: "", epoch: 7, owner: "", terminated: false },
      },
      code: "SESSION_LEASE_LOST",
      says: "lease",
    },
    {
      name: "a lease of another pod, token known",
      given: { lease: { token: "lease-1", epoch: 7, owner: "pod-2", terminated: false } },
      code: "FORBIDDEN",
      says: "another pod",
    },
    {
      name: "a service account of another pool",
      given: { caller: { podUid: "pod-1", serviceAccount: "drover-system/drover-pool-other" } },
      code: "FORBIDDEN",
      says: "pool",
    },
    {
      name: "a service account of the right name in a tenant's namespace",
      given: { caller: { podUid: "pod-1", serviceAccount: "team-a/drover-pool-default" } },
      code: "FORBIDDEN",
      says: "pool",
    },
    {
      name: "a sandbox that is bound to nobody",
      given: { request: { ...facts.request, sandbox } },
      code: "FORBIDDEN",
      says: "not bound",
    },
    {
      name: "a sandbox of another session",
      given: {
        request: { ...facts.request, sandbox },
        binding: { ...binding, sessionId: "sesn_other" },
      },
      code: "FORBIDDEN",
      says: "not bound",
    },
    {
      name: "a sandbox of another tenant",
      given: { request: { ...facts.request, sandbox }, binding: { ...binding, tenant: "team-b" } },
      code: "FORBIDDEN",
      says: "not bound",
    },
  ])("refuses $name", ({ given, code, says }) => {
    expect(() => decide({ ...facts, ...given })).toThrow(
      expect.objectContaining({ code, message: expect.stringContaining(says) }),
    );
  });
});
