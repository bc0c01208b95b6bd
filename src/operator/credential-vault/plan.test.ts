import { describe, expect, it } from "@jest/globals";
import { aVault } from "../../../test/builders/kinds.ts";
import type { EntryReport } from "../../protocol/session-ports.ts";
import {
  type EntryStatus,
  planConditions,
  planEntries,
  type Readers,
  secretReads,
  type VaultFacts,
} from "./plan.ts";

const pool = { namespace: "drover", name: "drover-pool-default" };
const other = { namespace: "drover", name: "drover-pool-other" };
const edge = { namespace: "drover", name: "drover-edge" };
const readers: Readers = { pools: [pool], edge };

const mcp = { name: "mcp", mcpServerUrl: "https://m.example/mcp", secretRef: { name: "token" } };
const git = { name: "git", repositoryUrl: "https://g.example/a/b", secretRef: { name: "deploy" } };
const model = { name: "model", modelProvider: "anthropic", vaultRef: { path: "model" } };

function facts(entries: object[], changes: Partial<VaultFacts> = {}): VaultFacts {
  const { spec } = aVault({ entries });
  const accesses = secretReads(spec, readers).map((read) => ({ ...read, allowed: true }));
  return { namespace: "team-a", spec, readers, accesses, vaultConfigured: true, ...changes };
}

const denied = (serviceAccount: typeof pool, secret: string) => [
  { serviceAccount, secret, allowed: false },
];
const AT = Date.parse("2026-01-01T00:00:00Z");
const reportOf = (report: Partial<EntryReport> = {}) =>
  new Map([
    ["mcp", { ok: true, reason: "Resolved", message: "", version: "3", ts: AT, ...report }],
  ]);
const RESOLVED = {
  name: "mcp",
  resolved: "True" as const,
  reason: "Resolved",
  message: "",
  version: "3",
  lastReadTime: "2026-01-01T00:00:00Z",
};

describe("secretReads", () => {
  it("asks for repositories as the edge, for all else as each pool, for a vault not at all", () => {
    const same = { ...mcp, name: "again", mcpServerUrl: "https://m.example/2" };
    const { spec } = aVault({ entries: [mcp, same, git, model] });

    expect(secretReads(spec, { pools: [pool, other], edge })).toEqual([
      { serviceAccount: pool, secret: "token" },
      { serviceAccount: other, secret: "token" },
      { serviceAccount: edge, secret: "deploy" },
    ]);
    expect(secretReads(spec, { pools: [pool], edge: undefined })).toEqual([
      { serviceAccount: pool, secret: "token" },
    ]);
  });
});

describe("planConditions", () => {
  it("a vault whose every value may be read is accepted", () => {
    expect(planConditions(facts([mcp, git, model]), [])[0]).toMatchObject({
      type: "Ready",
      status: "True",
      reason: "Accepted",
    });
  });

  it("names the account that lacks a Secret, and the commands that grant it", () => {
    const [ready] = planConditions(facts([mcp, git], { accesses: denied(edge, "deploy") }), []);

    expect(ready).toMatchObject({ status: "False", reason: "AccessDenied" });
    expect(ready?.message).toContain('service account "drover:drover-edge"');
    expect(ready?.message).toContain(
      "kubectl -n team-a create role drover-read-deploy --verb=get --resource=secrets --resource-name=deploy",
    );
  });

  it("says that an install without a vault cannot serve a vaultRef", () => {
    const [ready] = planConditions(facts([mcp, model], { vaultConfigured: false }), []);

    expect(ready).toMatchObject({ status: "False", reason: "InvalidReference" });
    expect(ready?.message).toContain('entry "model"');
    expect(ready?.message).toContain("vault.address");
  });
});

describe("a value that is gone", () => {
  const gone = { ok: false, reason: "CredentialNotFound", message: 'Secret "token" is not there' };
  const conditions = (reports: ReturnType<typeof reportOf> | undefined, before?: EntryStatus[]) =>
    planConditions(facts([mcp]), planEntries(facts([mcp]), reports, before))[0];

  it("makes the vault not Ready, with the proxy's own words", () => {
    expect(conditions(reportOf(gone))).toMatchObject({
      status: "False",
      reason: "CredentialNotFound",
      message: expect.stringContaining('entry "mcp": Secret "token" is not there'),
    });
  });

  it("is Ready again with the next read, and stays as it was while reports cannot be read", () => {
    const before = planEntries(facts([mcp]), reportOf(gone));

    expect(conditions(reportOf())).toMatchObject({ status: "True", reason: "Accepted" });
    expect(conditions(undefined, before)).toMatchObject({ reason: "CredentialNotFound" });
  });
});

describe("planEntries", () => {
  it("nothing is known of an entry before a proxy has read it", () => {
    expect(planEntries(facts([mcp]), new Map())).toEqual([
      {
        name: "mcp",
        resolved: "Unknown",
        reason: "NotChecked",
        message: "no session has asked for it yet",
      },
    ]);
  });

  it("copies what a proxy found", () => {
    const failed = { ok: false, reason: "CredentialUnavailable", message: "vault is sealed" };

    expect(planEntries(facts([mcp]), reportOf())).toEqual([RESOLVED]);
    expect(planEntries(facts([mcp]), reportOf(failed))).toEqual([
      { ...RESOLVED, resolved: "False", reason: failed.reason, message: failed.message },
    ]);
  });

  it("what no proxy can read is said, whatever one found before", () => {
    const vaultless = facts([{ ...model, name: "mcp" }], { vaultConfigured: false });
    const noGrant = facts([mcp], { accesses: denied(pool, "token") });

    expect(planEntries(vaultless, reportOf())).toMatchObject([
      { resolved: "False", reason: "InvalidReference" },
    ]);
    expect(planEntries(noGrant, reportOf())).toMatchObject([
      {
        resolved: "False",
        reason: "AccessDenied",
        message: expect.stringContaining("condition Ready"),
      },
    ]);
  });

  it("an entry is not blamed for a grant that another kind of entry lacks on the same Secret", () => {
    const shared = { ...git, secretRef: { name: "token" } };

    const entries = planEntries(
      facts([mcp, shared], { accesses: denied(edge, "token") }),
      reportOf(),
    );

    expect(entries.map(({ name, reason }) => [name, reason])).toEqual([
      ["mcp", "Resolved"],
      ["git", "AccessDenied"],
    ]);
  });

  it("what was known stays while the reports cannot be read", () => {
    expect(planEntries(facts([mcp]), undefined, [RESOLVED])).toEqual([RESOLVED]);
    expect(planEntries(facts([mcp]), undefined)).toMatchObject([{ reason: "NotChecked" }]);
  });

  it("an entry that goes on being read changes its status each five minutes, not each minute", () => {
    const after = (ms: number, more: Partial<EntryReport> = {}) =>
      planEntries(facts([mcp]), reportOf({ ts: AT + ms, ...more }), [RESOLVED])[0]?.lastReadTime;

    expect(after(240_000)).toBe("2026-01-01T00:00:00Z");
    expect(after(300_000)).toBe("2026-01-01T00:05:00Z");
    expect(after(60_000, { version: "4" })).toBe("2026-01-01T00:01:00Z");
  });
});
