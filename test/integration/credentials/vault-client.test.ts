import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "@jest/globals";
import { VaultClient } from "../../../src/credentials/vault/client.ts";
import { generateSigningKey } from "../../../src/protocol/tokens.ts";
import { systemClock } from "../../../src/runtime/clock.ts";
import { Secret } from "../../../src/runtime/secret.ts";
import { startVault, type VaultServer } from "../../servers/vault-server.ts";

/** The calls of the client that no source makes yet, and what a vault answers to each, for real. */

let vault: VaultServer;
let client: VaultClient;
let root: Secret;

beforeAll(async () => {
  vault = await startVault();
  const { publicJwk } = await generateSigningKey("key-1");
  await vault.setUpSessions({ keys: [publicJwk] });
  root = new Secret(vault.rootToken);
  client = new VaultClient({
    address: `${vault.address}/`,
    ca: vault.caPem,
    kvMount: "kv",
    clock: systemClock,
  });
});
afterAll(async () => {
  await client?.close();
  await vault?.stop();
});

async function newToken(options: Record<string, unknown> = {}): Promise<Secret> {
  const made = await vault.api("POST", "auth/token/create", { policies: ["default"], ...options });
  return new Secret((made["auth"] as { client_token: string }).client_token);
}

describe("writing with check-and-set", () => {
  const path = "t/team-a/v/main/written";

  it("counts versions, and refuses one that somebody else has replaced meanwhile", async () => {
    expect(await client.writeKv(root, path, { token: "CNRY-one" }, 0)).toBe(1);
    expect(await client.writeKv(root, path, { token: "CNRY-two" }, 1)).toBe(2);

    await expect(client.writeKv(root, path, { token: "CNRY-three" }, 1)).rejects.toMatchObject({
      code: "CONFLICT",
      message: expect.not.stringContaining("CNRY"),
    });
    expect(await client.readKv(root, path)).toEqual({ data: { token: "CNRY-two" }, version: 2 });
  });

  it("of two at the same time, one is refused and nothing is lost", async () => {
    const values = ["CNRY-left", "CNRY-right"];
    const written = await Promise.allSettled(
      values.map(async (token) => await client.writeKv(root, `${path}/both`, { token }, 0)),
    );
    const won = written.findIndex(({ status }) => status === "fulfilled");

    expect(written.map(({ status }) => status).toSorted()).toEqual(["fulfilled", "rejected"]);
    expect(await client.readKv(root, `${path}/both`)).toEqual({
      data: { token: values[won] },
      version: 1,
    });
  });

  it("needs the right to", async () => {
    const write = client.writeKv(await newToken(), path, { token: "CNRY-four" }, 2);

    await expect(write).rejects.toMatchObject({
      code: "CREDENTIAL_UNAVAILABLE",
      details: { status: 403 },
    });
  });
});

describe("a token", () => {
  it("lives on when it is renewed, and ends when it is revoked", async () => {
    const token = await newToken({ ttl: "1m", renewable: true });

    expect(await client.renewToken(token)).toEqual({ leaseSeconds: 60, renewable: true });
    await client.revokeToken(token);

    await expect(client.renewToken(token)).rejects.toMatchObject({
      code: "CREDENTIAL_UNAVAILABLE",
      retryable: false,
      details: { status: 403 },
    });
  });

  it("that cannot be renewed says so, without the token", async () => {
    const batch = await newToken({ type: "batch", ttl: "1m" });

    await expect(client.renewToken(batch)).rejects.toMatchObject({
      code: "CREDENTIAL_UNAVAILABLE",
      retryable: false,
      message: expect.not.stringContaining("hvb."),
    });
  });
});

describe("the lease of a dynamic secret", () => {
  /** A Consul, as far as the vault's engine for it asks one: it makes tokens and takes them back. */
  let consul: Server;
  let asked: string[];

  beforeAll(async () => {
    consul = createServer((request, response) => {
      asked.push(`${request.method} ${request.url}`);
      request.resume();
      response.writeHead(200, { "content-type": "application/json" });
      response.end(JSON.stringify({ AccessorID: "accessor-1", SecretID: "CNRY-dynamic" }));
    });
    await new Promise<void>((resolve) => consul.listen(0, "127.0.0.1", resolve));
    const { port } = consul.address() as AddressInfo;
    await vault.api("POST", "sys/mounts/consul", { type: "consul" });
    const address = `127.0.0.1:${port}`;
    await vault.api("POST", "consul/config/access", { address, scheme: "http", token: "x" });
    await vault.api("POST", "consul/roles/app", { consul_policies: ["app"], ttl: "1m" });
  });
  beforeEach(() => {
    asked = [];
  });
  afterAll(() => {
    consul?.closeAllConnections();
    consul?.close();
  });

  it("lives on when it is renewed, and its secret ends when it is revoked", async () => {
    const made = await vault.api("GET", "consul/creds/app");
    const id = made["lease_id"] as string;

    expect(await client.renewLease(root, id, 120)).toMatchObject({ renewable: true });
    await client.revokeLease(root, id);

    await expect(client.renewLease(root, id, 120)).rejects.toMatchObject({
      code: "CREDENTIAL_UNAVAILABLE",
      retryable: false,
    });
    expect(asked).toContain("DELETE /v1/acl/token/accessor-1");
  });
});

it("the namespace inside a vault is asked for on every call", async () => {
  const seen: (string | undefined)[] = [];
  const server = createServer((request, response) => {
    seen.push(request.headers["x-vault-namespace"]?.toString());
    response.writeHead(404).end("{}");
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const options = { address, namespace: "teams/agents", kvMount: "kv", clock: systemClock };
  const namespaced = new VaultClient(options);

  expect(await namespaced.readKv(root, "some/path")).toBeNull();
  await expect(namespaced.login("jwt", "role", root)).rejects.toThrow(/answered 404/);
  expect(seen).toEqual(["teams/agents", "teams/agents"]);

  await namespaced.close();
  server.close();
});
