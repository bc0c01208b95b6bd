import { describe, expect, it } from "@jest/globals";
import { aSnapshot } from "../../test/builders/snapshot.ts";
import { FakeClock } from "../../test/fakes/fake-clock.ts";
import type { CredentialSource } from "../credentials/credential-source.ts";
import { AppError } from "../runtime/errors.ts";
import { Secret } from "../runtime/secret.ts";
import type { CredentialReport } from "./reported-read.ts";
import { SecretChecks } from "./secret-checks.ts";

function start() {
  const clock = new FakeClock();
  const gone = new Set<string>();
  const asked: string[] = [];
  const reports: CredentialReport[] = [];
  const source: CredentialSource = {
    read: async ({ tenant, entry: { name, secretRef } }) => {
      const secret = `${tenant}/${secretRef?.name}`;
      asked.push(secret);
      if (gone.has(secret)) throw new AppError("CREDENTIAL_NOT_FOUND", `${name}: no Secret`);
      return { value: new Secret("v"), version: "7" };
    },
  };
  const checks = new SecretChecks({
    clock,
    serves: ({ repositoryUrl }) => repositoryUrl === undefined,
    onRead: (report) => reports.push(report),
    source,
  });
  const stop = new AbortController();
  const running = checks.run(stop.signal);
  return { clock, gone, asked, reports, checks, source, stop, running };
}

function snapshotWith(...secrets: string[]) {
  const entries = secrets.map((name) => ({
    name,
    mcpServerUrl: `https://${name}.example/mcp`,
    secretRef: { name, key: "token" },
  }));
  const git = {
    repositoryUrl: "https://git.example/a/b",
    secretRef: { name: "git", key: "token" },
  };
  const kept = {
    mcpServerUrl: "https://kept.example/mcp",
    vaultRef: { path: "kept", key: "token" },
  };
  const all = [...entries, { name: "git", ...git }, { name: "kept", ...kept }];
  const common = { header: "Authorization", scheme: "Bearer" };
  const vault = { name: "team", uid: "u", entries: all.map((entry) => ({ ...common, ...entry })) };
  return aSnapshot({ vaults: [vault] });
}

describe("SecretChecks", () => {
  it("reports a Secret that is gone and one that is back, though no request needs it", async () => {
    const { clock, gone, reports, checks } = start();
    checks.served(snapshotWith("tracker"));
    await clock.advance(10_000);
    gone.add("team-a/tracker");
    await clock.advance(10_000);
    gone.clear();
    await clock.advance(10_000);

    const about = { tenant: "team-a", vault: "team", entry: "tracker" };
    expect(reports).toEqual([
      { ...about, version: "7" },
      { ...about, failure: { code: "CREDENTIAL_NOT_FOUND", message: "tracker: no Secret" } },
      { ...about, version: "7" },
    ]);
  });

  it("looks at Secrets that this process adds to requests, and at no others", async () => {
    const { clock, asked, checks } = start();
    checks.served(snapshotWith("tracker"));
    await clock.advance(10_000);

    expect(asked).toEqual(["team-a/tracker"]);
  });

  it("stops an hour after the last session of it was served", async () => {
    const { clock, asked, checks } = start();
    checks.served(snapshotWith("tracker"));
    await clock.advance(30 * 60_000);
    checks.served(snapshotWith("tracker"));
    await clock.advance(60 * 60_000 + 10_000);
    const before = asked.length;
    await clock.advance(60_000);

    expect(asked).toHaveLength(before);
  });

  it("looks at two hundred entries at most: those that were served last", async () => {
    const { clock, asked, checks } = start();
    const names = Array.from({ length: 300 }, (_, i) => `s${i}`);
    for (let i = 0; i < 300; i += 50) checks.served(snapshotWith(...names.slice(i, i + 50)));
    await clock.advance(10_000);

    expect(asked).toHaveLength(200);
    expect(asked).toContain("team-a/s299");
    expect(asked).not.toContain("team-a/s0");
  });

  it("looks at an entry once a pass, also when it is served meanwhile", async () => {
    const { clock, asked, checks, source } = start();
    checks.served(snapshotWith("tracker"));
    source.read = async () => {
      if (asked.push("tracker") < 5) checks.served(snapshotWith("tracker"));
      return { value: new Secret("v"), version: "7" };
    };
    await clock.advance(10_000);

    expect(asked).toHaveLength(1);
  });

  it("ends when it is told to", async () => {
    const { stop, running } = start();
    stop.abort();
    await expect(running).resolves.toBeUndefined();
  });
});
