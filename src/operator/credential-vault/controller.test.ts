import { afterEach, describe, expect, it } from "@jest/globals";
import { anInstall } from "../../../test/builders/install.ts";
import { aVault } from "../../../test/builders/kinds.ts";
import { anOperator } from "../../../test/builders/operator-on-fakes.ts";
import { credentialVaults } from "../kinds.ts";

const entries = [
  { name: "model", modelProvider: "anthropic", vaultRef: { path: "model" } },
  { name: "git", repositoryUrl: "https://git.example/a/b", vaultRef: { path: "git" } },
];
const report = { ok: true, reason: "Resolved", message: "", version: "3", ts: 1_767_225_600_000 };

let stop: AbortController | undefined;
afterEach(() => stop?.abort());

async function start() {
  const vault = { address: "https://vault.example", sessionIdentity: "session" as const };
  const operator = anOperator((log) => log, anInstall({ vault }));
  stop = new AbortController();
  await operator.kube.create(credentialVaults, aVault({ entries }));
  void operator.manager.run(stop.signal);
  await operator.clock.advance(2000);
  const status = async () => {
    const at = { namespace: "team-a", name: "vault" };
    return (await operator.kube.get(credentialVaults, at)).status;
  };
  const resolved = async () =>
    (await status())?.entries?.map(({ name, resolved: word }) => `${name} ${word}`);
  const writes = () => operator.kube.requests.filter(({ verb }) => verb === "patchStatus").length;
  return { ...operator, status, resolved, writes };
}

describe("CredentialVaultController", () => {
  it("copies what proxies report, within seconds, and writes only what is new", async () => {
    const { clock, reports, status, resolved, writes } = await start();
    expect(await resolved()).toEqual(["model Unknown", "git Unknown"]);
    expect((await status())?.conditions?.[0]).toMatchObject({ type: "Ready", status: "True" });

    reports.set("team-a/vault", new Map([["model", report]]));
    await clock.advance(16_000);

    expect(await resolved()).toEqual(["model True", "git Unknown"]);
    const before = writes();
    reports.set("team-a/vault", new Map([["model", { ...report, ts: report.ts + 60_000 }]]));
    await clock.advance(60_000);
    expect(writes()).toBe(before);
  });

  it("keeps what was known while reports cannot be read", async () => {
    const { clock, reports, resolved, writes } = await start();
    reports.set("team-a/vault", new Map([["model", report]]));
    await clock.advance(16_000);
    const before = writes();

    reports.get = () => {
      throw new Error("no store");
    };
    await clock.advance(60_000);

    expect(await resolved()).toEqual(["model True", "git Unknown"]);
    expect(writes()).toBe(before);
  });
});
