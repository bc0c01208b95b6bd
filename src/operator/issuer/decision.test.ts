import { describe, expect, it } from "@jest/globals";
import { aSnapshot } from "../../../test/builders/snapshot.ts";
import { leaseTokenHash } from "../../protocol/tokens.ts";
import {
  decide,
  decideVaultToken,
  type IssueFacts,
  type ShownToken,
  shownTo,
  type VaultTokenFacts,
} from "./decision.ts";

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

  it("grants an execute and a sandbox token for a sandbox that is bound to the session", () => {
    const grant = decide({ ...facts, request: { ...facts.request, sandbox }, binding });

    const common = {
      sub: snapshot.sessionId,
      ten: "team-a",
      hand: "main",
      gen: 2,
      sbx: "sbx-1",
    };
    expect(grant.hand).toEqual({
      execute: { ...common, epoch: 7 },
      sandbox: { ...common, ip: "10.0.0.7" },
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

const EDGE_CALLER = { podUid: "edge-1", serviceAccount: "drover-system/drover-edge" };
const LEASE = { token: "lease-1", epoch: 7, owner: "pod-1", terminated: false };
const sessionShown = {
  kind: "session",
  claims: {
    sub: snapshot.sessionId,
    ten: "team-a",
    ver: "r1",
    epoch: 7,
    ltk: leaseTokenHash("lease-1"),
    pod: "pod-1",
    exp: 1,
  },
  lease: LEASE,
} satisfies ShownToken;
const sandboxShown = {
  kind: "sandbox",
  claims: {
    sub: snapshot.sessionId,
    ten: "team-a",
    hand: "main",
    gen: 2,
    sbx: "sbx-1",
    ip: "10.0.0.7",
    exp: 1,
  },
  binding,
  // Between turns nobody holds the session, and its sandbox may still use git.
  lease: { token: "", epoch: 7, owner: "", terminated: false },
} satisfies ShownToken;
const vault = { name: "git", uid: "uid-1", entries: [] };
const bySession: VaultTokenFacts = {
  caller: facts.caller,
  namespace: "drover-system",
  shown: sessionShown,
  vault: "git",
  snapshot: aSnapshot({ vaults: [vault] }),
};
const bySandbox: VaultTokenFacts = { ...bySession, caller: EDGE_CALLER, shown: sandboxShown };

describe("decideVaultToken", () => {
  it.each([
    { name: "a sidecar that shows its session's token", facts: bySession },
    { name: "the edge that shows a sandbox's token", facts: bySandbox },
  ])("opens one vault of the session for $name", ({ facts: given }) => {
    expect(decideVaultToken(given)).toEqual({
      sub: snapshot.sessionId,
      ten: "team-a",
      vlt: "git",
      vid: "team-a:git",
    });
  });

  const sessionBut = (changes: object, lease: object | null = {}): ShownToken => ({
    ...sessionShown,
    claims: { ...sessionShown.claims, ...changes },
    lease: lease === null ? null : { ...LEASE, ...lease },
  });
  const bindingBut = (changes: object | null): ShownToken => ({
    ...sandboxShown,
    binding: changes === null ? null : { ...binding, ...changes },
  });

  it.each<{ name: string; given: VaultTokenFacts; code: string; says: string }>([
    {
      name: "a session that is gone",
      given: { ...bySession, snapshot: null },
      code: "SESSION_NOT_FOUND",
      says: "exist",
    },
    {
      name: "a session of another tenant's name",
      given: { ...bySession, shown: sessionBut({ ten: "team-b" }) },
      code: "SESSION_NOT_FOUND",
      says: "exist",
    },
    {
      name: "a vault the session does not name",
      given: { ...bySession, vault: "other" },
      code: "FORBIDDEN",
      says: 'credential vault "other"',
    },
    {
      name: "a sandbox whose session is terminated",
      given: {
        ...bySandbox,
        shown: { ...sandboxShown, lease: { ...LEASE, terminated: true } },
      },
      code: "SESSION_CLOSED",
      says: "terminated",
    },
    {
      name: "a sandbox whose session is no more",
      given: { ...bySandbox, shown: { ...sandboxShown, lease: null } },
      code: "SESSION_NOT_FOUND",
      says: "exist",
    },
    {
      name: "the account of another pool",
      given: {
        ...bySession,
        caller: { podUid: "pod-1", serviceAccount: "drover-system/drover-pool-other" },
      },
      code: "FORBIDDEN",
      says: "not served by the caller",
    },
    {
      name: "the edge's account name in a tenant's namespace",
      given: { ...bySandbox, caller: { podUid: "edge-1", serviceAccount: "team-a/drover-edge" } },
      code: "FORBIDDEN",
      says: "not served by the caller",
    },
    {
      name: "the edge with a session token",
      given: { ...bySession, caller: EDGE_CALLER },
      code: "FORBIDDEN",
      says: "not served by the caller",
    },
    {
      name: "a sidecar with a sandbox token",
      given: { ...bySandbox, caller: facts.caller },
      code: "FORBIDDEN",
      says: "not served by the caller",
    },
    {
      name: "a session token that another pod was given",
      given: { ...bySession, shown: sessionBut({ pod: "pod-2" }, { owner: "pod-2" }) },
      code: "FORBIDDEN",
      says: "another pod",
    },
    {
      name: "an epoch that has gone by",
      given: { ...bySession, shown: sessionBut({}, { epoch: 8 }) },
      code: "SESSION_LEASE_LOST",
      says: "lease",
    },
    {
      name: "a lease token that has gone by, epoch given out twice",
      given: { ...bySession, shown: sessionBut({}, { token: "lease-2" }) },
      code: "SESSION_LEASE_LOST",
      says: "lease",
    },
    {
      name: "a lease that another pod holds",
      given: { ...bySession, shown: sessionBut({}, { owner: "pod-2" }) },
      code: "SESSION_LEASE_LOST",
      says: "lease",
    },
    {
      name: "a terminated session",
      given: { ...bySession, shown: sessionBut({}, { terminated: true }) },
      code: "SESSION_CLOSED",
      says: "terminated",
    },
    ...[
      { name: "bound to nobody", changes: null },
      { name: "bound to another session", changes: { sessionId: "sesn_other" } },
      { name: "bound in another tenant", changes: { tenant: "team-b" } },
      { name: "bound as another hand", changes: { hand: "other" } },
      { name: "bound in a later generation", changes: { generation: 3 } },
      { name: "bound at another address", changes: { ip: "10.0.0.8" } },
    ].map(({ name, changes }) => ({
      name: `a sandbox ${name}`,
      given: { ...bySandbox, shown: bindingBut(changes) },
      code: "FORBIDDEN",
      says: "not bound",
    })),
  ])("refuses $name", ({ given, code, says }) => {
    expect(() => decideVaultToken(given)).toThrow(
      expect.objectContaining({ code, message: expect.stringContaining(says) }),
    );
  });

  it("takes sandbox tokens from the edge of the install and session tokens from all others", () => {
    const kinds = [
      EDGE_CALLER,
      facts.caller,
      { podUid: "x", serviceAccount: "team-a/drover-edge" },
    ].map((caller) => shownTo(caller, "drover-system"));

    expect(kinds).toEqual(["sandbox", "session", "session"]);
  });
});

it("no tokens for a session are given to the edge", () => {
  expect(() => decide({ ...facts, caller: EDGE_CALLER })).toThrow(
    expect.objectContaining({ code: "FORBIDDEN" }),
  );
});
