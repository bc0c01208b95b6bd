import { afterAll, beforeAll, describe, expect, it } from "@jest/globals";
import { decodeJwt } from "jose";
import { VaultClient } from "../../src/credentials/vault/client.ts";
import { SessionReader } from "../../src/credentials/vault/session-reader.ts";
import { systemClock } from "../../src/runtime/clock.ts";
import { Secret } from "../../src/runtime/secret.ts";
import { Cleanups } from "../cleanups.ts";
import { TENANT } from "../integration/proxy/rig.ts";
import { newMarker } from "./sweeper.ts";
import { ENTRY, startVaultRig, VAULT, type VaultRig, type VaultSession } from "./vault-rig.ts";

/**
 * T06: a proxy that was taken over asks the vault for what is not its session's. It has all that the
 * proxy has: the session's token, the issuer's answers, the vault's own tokens. The vault refuses.
 */

const own = newMarker("T06");
const others = newMarker("T06");
const cleanups = new Cleanups();
let rig: VaultRig;
let session: VaultSession;
let client: VaultClient;

beforeAll(async () => {
  rig = await startVaultRig(cleanups, { marker: own });
  for (const folder of [
    "t/team-b/v/main",
    "t/team-a/v/second",
    "t/team-a/v/main2",
    "pools/default",
  ]) {
    await rig.vault.put(`${folder}/docs`, { token: others });
  }
  session = rig.newSession();
  client = new VaultClient({
    address: rig.vault.address,
    ca: rig.vault.caPem,
    kvMount: "kv",
    clock: systemClock,
  });
  cleanups.add(async () => await client.close());
});
afterAll(async () => await cleanups.run());

/** A reader with the session's identity that takes any path: the proxy without its own rules. */
async function readAs(path: string, vault = VAULT) {
  const { tokens } = rig;
  const [mount, role] = ["jwt", "drover-session"];
  const reader = new SessionReader({ client, tokens, mount, role, clock: systemClock });
  const identity = await session.identity();
  return await reader.read(path, { tenant: TENANT, vault, entry: ENTRY, session: identity });
}

/** The vault's own token for the session, as a taken over proxy finds it in its memory. */
async function vaultToken(): Promise<string> {
  const token = (await session.identity()).token.reveal();
  const { vaultToken: jwt } = await rig.tokens.vaultToken({ token, vault: VAULT });
  return (await client.login("jwt", "drover-session", new Secret(jwt))).token.reveal();
}

it("reads the session's own credential, and the tool's server gets it", async () => {
  expect(await session.callUntilServed()).toMatchObject({ result: {} });
  expect(rig.received.at(-1)?.headers.authorization).toBe(`Bearer ${own}`);
  expect((await readAs("t/team-a/v/main/docs"))?.data).toEqual({ token: own });
});

it.each([
  "t/team-b/v/main/docs",
  "t/team-a/v/second/docs",
  "t/team-a/v/main2/docs",
  "t/team-b/v/main/absent",
  "pools/default/docs",
])("is refused %s by the vault", async (path) => {
  await expect(readAs(path)).rejects.toMatchObject({
    code: "CREDENTIAL_UNAVAILABLE",
    details: { status: 403 },
  });
});

describe("with the vault's token of the session", () => {
  it.each([
    ["GET", "kv/data/t/team-b/v/main/docs?version=1"],
    ["GET", "kv/data/t/team-a/v/main/../../../team-b/v/main/docs"],
    ["GET", "kv/data/t/team-a/v/main/%2e%2e/%2e%2e/%2e%2e/team-b/v/main/docs"],
    ["GET", "kv/metadata/t/team-b/v/main/docs"],
    ["LIST", "kv/metadata/t"],
    ["LIST", "kv/metadata/t/team-a/v/main"],
    ["POST", "kv/data/t/team-a/v/main/docs"],
    ["DELETE", "kv/data/t/team-a/v/main/docs"],
    ["GET", "sys/policies/acl/drover-session"],
    ["POST", "auth/token/create"],
    ["GET", "identity/entity/id?list=true"],
  ])("%s %s gives nothing", async (method, path) => {
    const body = method === "POST" ? { data: { token: "taken" }, options: { cas: 1 } } : undefined;
    const answer = await rig.vault.ask(method, path, body, await vaultToken());

    expect({ status: `${answer.status}`, text: JSON.stringify(answer.body) }).toEqual({
      status: expect.stringMatching(/^4\d\d$/),
      text: expect.not.stringContaining("CNRY"),
    });
  });

  it("GET of the session's own place is granted, so that the refusals say something", async () => {
    const path = "kv/data/t/team-a/v/main/docs";
    const { status, body } = await rig.vault.ask("GET", path, undefined, await vaultToken());

    expect({ status, text: JSON.stringify(body) }).toEqual({
      status: 200,
      text: expect.stringContaining(own),
    });
  });
});

describe("at the issuer", () => {
  it("gets a token with the session's tenant, for a vault of the session, for a minute", async () => {
    const token = (await session.identity()).token.reveal();
    const { vaultToken: jwt } = await rig.tokens.vaultToken({ token, vault: VAULT });
    const { ten, vlt, vid, sub, aud, exp = 0, iat = 0 } = decodeJwt(jwt);

    expect({ ten, vlt, vid, sub, aud, life: exp - iat }).toEqual({
      ten: TENANT,
      vlt: VAULT,
      vid: `${TENANT}:${VAULT}`,
      sub: session.id,
      aud: "vault",
      life: 60,
    });
  });

  it.each(["second", "main2", "../team-b/v/main", "main/../second"])(
    "gets none for the vault %s, which its session does not name",
    async (vault) => {
      const token = (await session.identity()).token.reveal();

      await expect(rig.tokens.vaultToken({ token, vault })).rejects.toMatchObject({
        code: "FORBIDDEN",
      });
    },
  );

  it("gets none once the session is over", async () => {
    const ended = rig.newSession();
    const token = (await ended.identity()).token.reveal();
    const lease = rig.rig.leases.get(ended.id);
    if (lease === undefined) throw new Error("no lease");
    rig.rig.leases.set(ended.id, { ...lease, terminated: true });

    await expect(rig.tokens.vaultToken({ token, vault: VAULT })).rejects.toMatchObject({
      code: "SESSION_CLOSED",
    });
  });
});

it.each([
  ["a session token", async () => (await session.identity()).token.reveal()],
  [
    "one whose tenant was changed",
    async () => await tampered({ ten: "team-b", vid: "team-b:main" }),
  ],
])("the vault lets nobody in with %s", async (_what, jwtOf) => {
  const login = client.login("jwt", "drover-session", new Secret(await jwtOf()));

  await expect(login).rejects.toMatchObject({
    code: "CREDENTIAL_UNAVAILABLE",
    retryable: false,
    message: expect.not.stringContaining("eyJ"),
  });
});

async function tampered(claims: Record<string, string>): Promise<string> {
  const token = (await session.identity()).token.reveal();
  const { vaultToken: jwt } = await rig.tokens.vaultToken({ token, vault: VAULT });
  const [header, payload = "", signature] = jwt.split(".");
  const old: unknown = JSON.parse(Buffer.from(payload, "base64url").toString());
  const changed = JSON.stringify({ ...(old as object), ...claims });
  return [header, Buffer.from(changed).toString("base64url"), signature].join(".");
}

it("a session whose proxy behaves is never refused anything by the vault", async () => {
  const before = (await rig.vault.auditLog()).length;
  const sessions = [rig.newSession(), rig.newSession()];
  for (const one of sessions) await one.callUntilServed();
  const log = (await rig.vault.auditLog()).slice(before);

  expect(log).toContain("kv/data/t/team-a/v/main/docs");
  expect(log).not.toMatch(/"error":"[^"]/);
});
