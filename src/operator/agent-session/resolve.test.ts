import { describe, expect, it } from "@jest/globals";
import { anAgent, aPool, aSession, aTemplate, aVault } from "../../../test/builders/kinds.ts";
import type { CredentialVault } from "../kinds.ts";
import { resolveSession, type SessionObjects } from "./resolve.ts";

function objects(changes: Partial<SessionObjects> = {}): SessionObjects {
  return {
    session: aSession(),
    installNamespace: "drover",
    agent: anAgent(),
    template: aTemplate(),
    vaults: new Map(),
    pool: aPool(),
    ...changes,
  };
}

function reviewed(status: "True" | "False", reason: string, message: string): CredentialVault {
  const lastTransitionTime = "2026-01-01T00:00:00Z";
  const condition = {
    type: "Ready",
    status,
    reason,
    message,
    lastTransitionTime,
    observedGeneration: 1,
  };
  return { ...aVault(), status: { conditions: [condition] } };
}

describe("resolving a session", () => {
  it("freezes agent, template, vaults and pool with their revisions", () => {
    const session = aSession({ vaultRefs: [{ name: "vault" }] });
    const resolution = resolveSession(objects({ session, vaults: new Map([["vault", aVault()]]) }));

    expect(resolution).toMatchObject({
      kind: "resolved",
      snapshot: {
        sessionId: expect.stringMatching(/^sesn_pool[0-9a-f]{2}_/),
        tenant: "team-a",
        object: { name: "hello", uid: "uid-of-team-a-hello" },
        agent: {
          name: "coder",
          model: "scripted",
          revision: expect.stringMatching(/^[0-9a-f]{16}$/),
        },
        template: { name: "node", image: "drover-sandbox:dev" },
        vaults: [{ name: "vault", uid: "uid-of-team-a-vault" }],
        pool: { name: "default", code: "pool" },
      },
      resolved: { agent: "coder", template: "node", pool: "default" },
    });
  });

  it("gives the same id and snapshot each time, and another id to another object", () => {
    const first = resolveSession(objects());
    const second = resolveSession(objects());
    const other = aSession();
    other.metadata.uid = "another";

    expect(second).toEqual(first);
    const third = resolveSession(objects({ session: other }));
    expect(third.kind === "resolved" && first.kind === "resolved").toBe(true);
    if (third.kind !== "resolved" || first.kind !== "resolved") return;
    expect(third.snapshot.sessionId).not.toBe(first.snapshot.sessionId);
  });

  it("an inline agent needs no object", () => {
    const session = aSession({
      agentRef: undefined,
      agent: { model: "m" },
      sandboxTemplateRef: undefined,
    });

    const resolution = resolveSession(objects({ session, agent: undefined, template: undefined }));

    expect(resolution).toMatchObject({ kind: "resolved", resolved: { agent: "inline" } });
    expect(resolution.conditions.find(({ type }) => type === "TemplateResolved")).toMatchObject({
      status: "True",
      reason: "NotRequired",
    });
  });

  const stored = aTemplate();
  stored.spec.resources.memory = "1Gigs";
  const emptyMemory = aTemplate();
  emptyMemory.spec.resources.memory = "";
  it.each([
    {
      name: "a missing agent",
      given: { agent: undefined },
      type: "AgentResolved",
      reason: "InvalidReference",
      says: 'refers to agent "coder" which does not exist in namespace "team-a"; create the Agent',
    },
    {
      name: "a missing template",
      given: { template: undefined },
      type: "TemplateResolved",
      reason: "InvalidReference",
      says: 'sandbox template "node" which does not exist',
    },
    {
      name: "a missing vault",
      given: { session: aSession({ vaultRefs: [{ name: "gone" }] }) },
      type: "VaultsResolved",
      reason: "InvalidReference",
      says: "spec.vaultRefs[0].name",
    },
    {
      name: "a missing pool",
      given: { pool: undefined },
      type: "PoolResolved",
      reason: "InvalidReference",
      says: 'in namespace "drover", where Drover is installed',
    },
    {
      name: "a pool of another tenant",
      given: { pool: aPool({ allowedNamespaces: { from: "Same" } }) },
      type: "PoolResolved",
      reason: "NamespaceNotAllowed",
      says: 'does not serve namespace "team-a"',
    },
    {
      name: "a pool whose selector does not match",
      given: {
        pool: aPool({
          allowedNamespaces: { from: "Selector", selector: { matchLabels: { a: "b" } } },
        }),
        namespaceLabels: { a: "c" },
      },
      type: "PoolResolved",
      reason: "NamespaceNotAllowed",
      says: "matchLabels",
    },
    {
      name: "an agent with tools that need a sandbox, and no template",
      given: { session: aSession({ sandboxTemplateRef: undefined }) },
      type: "TemplateResolved",
      reason: "TemplateRequired",
      says: "spec.sandboxTemplateRef",
    },
    {
      name: "a template stored with an unparsable quantity",
      given: { template: stored },
      type: "TemplateResolved",
      reason: "InvalidSpec",
      says: "spec.resources.memory",
    },
    {
      name: "a template stored with an empty quantity",
      given: { template: emptyMemory },
      type: "TemplateResolved",
      reason: "InvalidSpec",
      says: 'SandboxTemplate "node" in namespace "team-a"',
    },
  ])("$name is a condition that says what to do", ({ given, type, reason, says }) => {
    const resolution = resolveSession(objects(given));

    expect(resolution).toMatchObject({ kind: "unresolved", problem: { type, reason } });
    expect(resolution.conditions).toHaveLength(4);
    expect(resolution.conditions.find((one) => one.type === type)).toMatchObject({
      status: "False",
      message: expect.stringContaining(says),
    });
  });

  it("a selector that matches the namespace's labels admits it", () => {
    const pool = aPool({
      allowedNamespaces: { from: "Selector", selector: { matchLabels: { team: "a" } } },
    });

    const resolution = resolveSession(objects({ pool, namespaceLabels: { team: "a", x: "y" } }));

    expect(resolution.kind).toBe("resolved");
  });

  it("a vault that may not be read is told with the grant its review asks for", () => {
    const message = "grant what is missing with: kubectl create role";
    const session = aSession({ vaultRefs: [{ name: "vault" }] });
    const resolution = resolveSession(
      objects({
        session,
        vaults: new Map([["vault", reviewed("False", "AccessDenied", message)]]),
      }),
    );

    expect(resolution).toMatchObject({
      kind: "unresolved",
      problem: {
        type: "VaultsResolved",
        reason: "AccessDenied",
        message: `credential vault "vault" cannot be used: ${message}`,
      },
    });
  });

  it("a vault that nobody has reviewed is waited for where vaults are reviewed", () => {
    const session = aSession({ vaultRefs: [{ name: "vault" }] });
    const resolve = (vault: CredentialVault, vaultsAreReviewed: boolean) =>
      resolveSession(objects({ session, vaultsAreReviewed, vaults: new Map([["vault", vault]]) }));

    expect(resolve(aVault(), true)).toMatchObject({
      kind: "not-yet",
      message: 'credential vault "vault" has not been reviewed yet',
    });
    expect(resolve(reviewed("True", "Accepted", ""), true).kind).toBe("resolved");
    expect(resolve(aVault(), false).kind).toBe("resolved");
  });

  it("a pool without a code is waited for, not reported as wrong", () => {
    const pool = aPool();
    delete pool.status;

    expect(resolveSession(objects({ pool }))).toMatchObject({ kind: "not-yet" });
  });
});
