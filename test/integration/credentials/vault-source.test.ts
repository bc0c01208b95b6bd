import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "@jest/globals";
import type { CredentialRequest } from "../../../src/credentials/credential-source.ts";
import { VaultClient } from "../../../src/credentials/vault/client.ts";
import { SessionReader } from "../../../src/credentials/vault/session-reader.ts";
import { VaultSource } from "../../../src/credentials/vault/vault-source.ts";
import {
  generateSigningKey,
  type SigningKey,
  signToken,
  VAULT_TOKEN_LIFE_SECONDS,
} from "../../../src/protocol/tokens.ts";
import { systemClock } from "../../../src/runtime/clock.ts";
import { Secret } from "../../../src/runtime/secret.ts";
import { credentialSourceContract, request } from "../../contracts/credential-source.ts";
import { openBao, startVault, type VaultServer } from "../../servers/vault-server.ts";

/** Sessions' credentials in a real Vault, whose own policy says who reads what. */

const TENANT = "team-a";

function entry(path: string, key = "token") {
  return { name: "docs", vaultRef: { path, key } };
}

/** The issuer, as far as a source sees it: it says whose session this is, and counts. */
class Issuer {
  readonly key: SigningKey;
  asked = 0;
  tenant = TENANT;

  constructor(key: SigningKey) {
    this.key = key;
  }

  async vaultToken({ token, vault }: { token: string; vault: string }) {
    this.asked += 1;
    const claims = { sub: token, ten: this.tenant, vlt: vault, vid: `${this.tenant}:${vault}` };
    const times = { nowMs: Date.now(), lifeSeconds: VAULT_TOKEN_LIFE_SECONDS };
    return {
      vaultToken: await signToken(this.key, "vault", claims, times),
      expiresAt: Date.now() + 60_000,
    };
  }
}

function sourceOf(vault: VaultServer, issuer: Issuer) {
  const clock = systemClock;
  const client = new VaultClient({ address: vault.address, ca: vault.caPem, kvMount: "kv", clock });
  const reader = new SessionReader({
    client,
    tokens: issuer,
    mount: "jwt",
    role: "drover-session",
    clock,
  });
  return { client, source: new VaultSource({ reader }) };
}

function contract(server: string, describeServer: typeof describe.skip, program?: string): void {
  describeServer(server, () => {
    let vault: VaultServer;
    let issuer: Issuer;
    beforeAll(async () => {
      issuer = new Issuer(await generateSigningKey("key-1"));
      vault = await startVault(program === undefined ? {} : { program });
      await vault.setUpSessions({ keys: [issuer.key.publicJwk] });
    });
    afterAll(async () => await vault?.stop());

    credentialSourceContract("VaultSource", async () => {
      const { client, source } = sourceOf(vault, issuer);
      const written: string[] = [];
      let isSealed = false;
      return {
        source,
        entry,
        async put(tenant, path, key, value) {
          written.push(`t/${tenant}/v/main/${path}`);
          await vault.put(written.at(-1) ?? "", { [key]: value });
        },
        async remove(tenant, path) {
          await vault.api("DELETE", `kv/data/t/${tenant}/v/main/${path}`);
        },
        async breakDown() {
          isSealed = true;
          await vault.seal();
        },
        async close() {
          await client.close();
          if (isSealed) await vault.unseal();
          for (const path of written) await vault.api("DELETE", `kv/metadata/${path}`);
        },
      };
    });
  });
}

contract("a real Vault", describe);
// Counted as skipped without one: a suite that could not run is not silently green.
contract(
  "a real OpenBao (named by BAO_BIN)",
  openBao() === undefined ? describe.skip : describe,
  openBao(),
);

describe("VaultSource", () => {
  let vault: VaultServer;
  let issuer: Issuer;
  let client: VaultClient;
  let source: VaultSource;
  beforeAll(async () => {
    issuer = new Issuer(await generateSigningKey("key-1"));
    vault = await startVault();
    await vault.setUpSessions({ keys: [issuer.key.publicJwk] });
    await vault.put("t/team-a/v/main/docs", {
      token: "CNRY-docs-value",
      other: "CNRY-other-value",
    });
    await vault.put("t/team-a/v/main/deep/er", { token: "CNRY-deeper-value" });
    await vault.put("t/team-a/v/second/docs", { token: "CNRY-second-value" });
    await vault.put("t/team-b/v/main/docs", { token: "CNRY-others-value" });
    await vault.put("t/team-a/v/main/number", { token: 123_456_789 });
  });
  afterAll(async () => await vault?.stop());
  beforeEach(() => {
    issuer.asked = 0;
    issuer.tenant = TENANT;
    ({ client, source } = sourceOf(vault, issuer));
  });
  afterEach(async () => await client.close());

  async function read(changes: Partial<CredentialRequest>): Promise<string> {
    const { value } = await source.read(request({ entry: entry("docs"), ...changes }));
    return value.reveal();
  }

  it("reads several vaults of one session, each with a login of its own", async () => {
    expect(await read({})).toBe("CNRY-docs-value");
    expect(await read({ entry: entry("deep/er") })).toBe("CNRY-deeper-value");
    expect(await read({ vault: "second" })).toBe("CNRY-second-value");
    expect(await read({})).toBe("CNRY-docs-value");
    expect(issuer.asked).toBe(2);
  });

  it("logs in again for another session, though it reads the same", async () => {
    await read({});
    await read({ session: { id: "sesn_2", token: new Secret("another") } });

    expect(issuer.asked).toBe(2);
  });

  it("reads a path once for all that want its keys at the same time", async () => {
    const before = await readsInAudit();
    const keys = ["token", "other", "token", "other"];
    const values = await Promise.all(keys.map((key) => read({ entry: entry("docs", key) })));

    expect(new Set(values)).toEqual(new Set(["CNRY-docs-value", "CNRY-other-value"]));
    expect(await readsInAudit()).toBe(before + 1);
    expect(issuer.asked).toBe(1);
  });

  it("says the KV version, so that an audit can name what was used", async () => {
    const first = await source.read(request({ entry: entry("docs") }));
    await vault.put("t/team-a/v/main/docs", {
      token: "CNRY-docs-value",
      other: "CNRY-other-value",
    });
    const second = await source.read(request({ entry: entry("docs") }));

    expect(Number(second.version)).toBe(Number(first.version) + 1);
  });

  it("does not take a number for a credential", async () => {
    await expect(read({ entry: entry("number") })).rejects.toMatchObject({
      code: "CREDENTIAL_UNAVAILABLE",
      message: expect.stringContaining("is not text"),
    });
  });

  it.each(["../../../team-b/v/main/docs", "/docs", "a//b", "./docs", ""])(
    "asks nothing of the vault for the path %j",
    async (path) => {
      const before = await readsInAudit();

      await expect(read({ entry: entry(path) })).rejects.toMatchObject({
        code: "CREDENTIAL_UNAVAILABLE",
        retryable: false,
        message: expect.stringContaining('entry "docs" of credential vault "main"'),
      });
      expect(await readsInAudit()).toBe(before);
    },
  );

  it("takes %2e%2e for the name of a folder, not for the way to another", async () => {
    await expect(
      read({ entry: entry("%2e%2e/%2e%2e/%2e%2e/team-b/v/main/docs") }),
    ).rejects.toMatchObject({ code: "CREDENTIAL_NOT_FOUND" });
  });

  it("is refused by the vault, and says what to compare, when the issuer names another tenant", async () => {
    issuer.tenant = "team-c";

    await expect(read({})).rejects.toMatchObject({
      code: "CREDENTIAL_UNAVAILABLE",
      retryable: false,
      message: expect.stringMatching(/refuses it \(403\); compare .*docs\/guides\/vault\.md/),
    });
  });

  it("logs in once more when the vault refuses a token that it gave", async () => {
    await vault.api("POST", "auth/jwt/role/drover-session", {
      ...(await role()),
      token_type: "service",
    });
    try {
      await read({});
      await vault.api("PUT", "sys/leases/revoke-prefix/auth/jwt/login");

      expect(await read({})).toBe("CNRY-docs-value");
      expect(issuer.asked).toBe(2);
    } finally {
      await vault.api("POST", "auth/jwt/role/drover-session", {
        ...(await role()),
        token_type: "batch",
      });
    }
  });

  it("refuses to read for an entry that names no place in a vault", async () => {
    await expect(source.read(request())).rejects.toMatchObject({ code: "CREDENTIAL_UNAVAILABLE" });
  });

  async function role(): Promise<Record<string, unknown>> {
    const answer = await vault.api("GET", "auth/jwt/role/drover-session");
    return answer["data"] as Record<string, unknown>;
  }

  async function readsInAudit(): Promise<number> {
    const lines = (await vault.auditLog()).trim().split("\n");
    return lines.filter((line) => {
      const { type, request: asked } = JSON.parse(line) as {
        type: string;
        request: { operation: string; path: string };
      };
      return type === "request" && asked.operation === "read" && asked.path.startsWith("kv/");
    }).length;
  }
});
