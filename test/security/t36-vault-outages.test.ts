import { afterAll, beforeAll, describe, expect, it } from "@jest/globals";
import { createSelfSignedCertificate } from "../../src/operator/issuer/certificate.ts";
import { Cleanups } from "../cleanups.ts";
import { TENANT } from "../integration/proxy/rig.ts";
import type { ProxiedRequest } from "../servers/fault-proxy.ts";
import { newMarker, Sweeper } from "./sweeper.ts";
import { ENTRY, startVaultRig, VAULT, type VaultRig, type VaultSession } from "./vault-rig.ts";

/**
 * T36: whatever a vault or the way to it does, the tool's server gets no request without the
 * credential, the caller an error that names the reason and no secret, and the next call after the
 * vault has come back is served without anybody's help.
 */

const marker = newMarker("T36");
const cleanups = new Cleanups();
const answers: string[] = [];
let rig: VaultRig;

beforeAll(async () => {
  rig = await startVaultRig(cleanups, { marker });
});
afterAll(async () => await cleanups.run());

const isRead = ({ path }: ProxiedRequest) => path.startsWith("/v1/kv/data/");
const isLogin = ({ path }: ProxiedRequest) => path === "/v1/auth/jwt/login";

/** What a call of a session brings: the error, and how many requests the tool's server got for it. */
async function outcome(session: VaultSession) {
  const before = rig.received.length;
  const { error } = await session.call();
  answers.push(JSON.stringify(error));
  return { error, sent: rig.received.length - before };
}

function unavailable(says: RegExp, retryable: boolean) {
  const message = expect.stringMatching(says);
  return { error: { message, data: { code: "CREDENTIAL_UNAVAILABLE", retryable } }, sent: 0 };
}

/** The credential that the tool's server got, once a call of the session was served; or why not. */
async function servedWith(session: VaultSession): Promise<string | undefined> {
  const { error } = await session.callUntilServed();
  if (error !== undefined) return error.message;
  return rig.received.at(-1)?.headers.authorization;
}

const CREDENTIAL = `Bearer ${marker}`;

it("a call is served with the credential while nothing is wrong", async () => {
  expect(await servedWith(rig.newSession())).toBe(CREDENTIAL);
});

it("a sealed vault: told so, and served when it is unsealed", async () => {
  const session = rig.newSession();
  await rig.vault.seal();
  const sealed = await outcome(session);
  await rig.vault.unseal();

  expect(sealed).toEqual(unavailable(/the vault is sealed/, true));
  expect(await servedWith(session)).toBe(CREDENTIAL);
});

it("a vault that is killed and started again: served when it is unsealed", async () => {
  const session = rig.newSession();
  await rig.vault.restart();
  const restarted = await outcome(session);
  await rig.vault.unseal();

  expect(restarted).toEqual(unavailable(/the vault is sealed/, true));
  expect(await servedWith(session)).toBe(CREDENTIAL);
});

it("a vault that nobody reaches: told so, and served when it is there", async () => {
  const session = rig.newSession();
  rig.network.cut("refuse");
  const cut = await outcome(session);
  rig.network.restore();

  expect(cut).toEqual(unavailable(/the vault does not answer/, true));
  expect(await servedWith(session)).toBe(CREDENTIAL);
});

it("a vault that stands still: given up after seconds, and served when it moves", async () => {
  const session = rig.newSession();
  rig.vault.pause();
  const tooLate = new Promise((resolve) => setTimeout(resolve, 8000, "still waiting"));
  const slow = await Promise.race([outcome(session), tooLate]);
  rig.vault.resume();

  expect(slow).toEqual(unavailable(/did not answer within 5 s/, true));
  expect(await servedWith(session)).toBe(CREDENTIAL);
});

describe.each([
  { status: 429, says: /too many requests/ },
  { status: 500, says: /answered 500/ },
  { status: 502, says: /answered 502/ },
])("a vault that answers $status", ({ status, says }) => {
  it.each([
    { call: "login", matches: isLogin },
    { call: "read", matches: isRead },
  ])("to a $call: told so, and served by the next call", async ({ matches }) => {
    const session = rig.newSession();
    rig.network.fault({ matches, times: 1, reply: { status, body: { errors: [marker] } } });

    expect(await outcome(session)).toEqual(unavailable(says, true));
    expect(await servedWith(session)).toBe(CREDENTIAL);
  });
});

it.each([
  { what: "an answer that is no vault's", reply: { status: 200, body: { hello: marker } } },
  { what: "a redirect", reply: { status: 307, headers: { location: "http://127.0.0.1:9/" } } },
])("$what is not taken for a value", async ({ reply }) => {
  const session = rig.newSession();
  rig.network.fault({ matches: isRead, times: 1, reply });
  const place = /cannot read "kv\/data\/t\/team-a\/v\/main\/docs"/;

  expect(await outcome(session)).toEqual(unavailable(place, false));
  expect(await servedWith(session)).toBe(CREDENTIAL);
});

it("a refusal: told what to compare, and served when the policy is back", async () => {
  const session = rig.newSession();
  const policy = "sys/policies/acl/drover-session";
  const { data } = await rig.vault.api("GET", policy);
  await rig.vault.api("PUT", policy, { policy: 'path "kv/data/x" { capabilities = ["read"] }' });
  const refused = await outcome(session);
  await rig.vault.api("PUT", policy, data);

  expect(refused).toEqual(unavailable(/refuses it \(403\).*docs\/guides\/vault\.md/, false));
  expect(await servedWith(session)).toBe(CREDENTIAL);
});

it("a vault token that ends before its time is replaced, and the call notices nothing", async () => {
  const session = rig.newSession();
  const before = Date.now();
  await session.call();
  const reply = { status: 403, body: { errors: ["permission denied"] } };
  rig.network.fault({ matches: isRead, times: 1, reply });
  // Past what the proxy holds: the value of a moment ago.
  const identity = await session.identity();
  const request = { tenant: TENANT, vault: VAULT, entry: ENTRY, session: identity };

  await expect(rig.source.read(request)).resolves.toMatchObject({ version: "1" });
  expect(rig.network.since(before, isLogin)).toHaveLength(2);
});

it("a vault with a certificate of somebody else is told nothing", async () => {
  const forged = createSelfSignedCertificate("localhost", Date.now()).cert;
  const usual = rig;
  rig = await startVaultRig(cleanups, { marker, ca: () => forged });
  const untrusted = await outcome(rig.newSession());
  const told = await rig.vault.auditLog();
  rig = usual;

  expect(untrusted).toEqual(unavailable(/certificate is not trusted/, false));
  expect(told).not.toContain("auth/jwt/login");
});

it("a vault whose certificate is the given one is asked over TLS", async () => {
  const usual = rig;
  rig = await startVaultRig(cleanups, { marker, ca: ({ caPem }) => caPem });
  const credential = await servedWith(rig.newSession());
  rig = usual;

  expect(credential).toBe(CREDENTIAL);
});

it("neither the credential nor a token is in an answer, the log or the metrics", async () => {
  const { logLines, registry } = rig.rig;
  const sweeper = new Sweeper([marker]);
  sweeper.text("answers", answers.join("\n"));
  sweeper.text("log", logLines.join(""));
  sweeper.text("metrics", await registry.metrics());

  expect(sweeper.findings).toEqual([]);
  expect(`${answers.join("\n")}${logLines.join("")}`).not.toMatch(/hv[bs]\.|eyJ/);
});
