import { execFile } from "node:child_process";
import { createPublicKey } from "node:crypto";
import { chmod, mkdir, mkdtemp, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, expect, it } from "@jest/globals";
import { generateKeyPair, SignJWT } from "jose";
import { z } from "zod";
import { vaultSettings } from "../../../src/credentials/vault/config.ts";
import { openVault, type VaultAccess } from "../../../src/credentials/vault/vault-access.ts";
import {
  AUDIENCES,
  generateSigningKey,
  type SigningKey,
  signToken,
} from "../../../src/protocol/tokens.ts";
import { systemClock } from "../../../src/runtime/clock.ts";
import { loadConfig } from "../../../src/runtime/config.ts";
import { Secret } from "../../../src/runtime/secret.ts";
import { startVault, type VaultServer } from "../../servers/vault-server.ts";

/**
 * docs/guides/vault.md, followed by the letter with a Vault that has nothing yet: files written as
 * they stand there, commands run as they stand there (`vault …`, `sed "s/ACCESSOR/…`, and
 * `kubectl get configmap …`, which is played by a script). Then Drover, with its
 * default settings, reads what was set up.
 */

const run = promisify(execFile);
const VALUES = {
  first: "CNRY-guide-first",
  second: "CNRY-guide-second",
  model: "CNRY-guide-model",
};

let folder: string;
let vault: VaultServer;
let key: SigningKey;
let access: VaultAccess;
let kubernetes: Server;
/** Blocks of commands that are still to be run, in the order of the guide. */
let blocks: string[];

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "drover-vault-guide-"));
  key = await generateSigningKey("key-1");
  vault = await startVault();
  await makePrograms();
  const guide = await readFile("docs/guides/vault.md", "utf8");
  for (const [, name = "", text = ""] of guide.matchAll(
    /^`([\w-]+\.(?:hcl|json))`[^\n]*:\n\n```\w+\n(.*?)^```/gms,
  )) {
    await writeFile(join(folder, name), text);
  }
  await writeFile(join(folder, "tracker-token.txt"), `${VALUES.first}\n`);
  await writeFile(join(folder, "tracker-token-new.txt"), VALUES.second);
  await writeFile(join(folder, "model-key.txt"), VALUES.model);
  await writeFile(join(folder, "pod-token"), await podToken());
  blocks = [...guide.matchAll(/^```sh\n(.*?)^```/gms)].map(([, text = ""]) => text);
  access = openAccess();
});

afterAll(async () => {
  await access?.close();
  kubernetes?.close();
  await vault?.stop();
  await rm(folder, { recursive: true });
});

/** `vault`, and a `kubectl` that knows two ConfigMaps. */
async function makePrograms(): Promise<void> {
  const programs = join(folder, "bin");
  await mkdir(programs);
  const { stdout } = await run("which", [vault.program]);
  await symlink(stdout.trim(), join(programs, "vault"));
  const pem = createPublicKey({ key: key.publicJwk, format: "jwk" }).export({
    type: "spki",
    format: "pem",
  });
  const configMap = (name: string, field: string, text: string) =>
    `[ "$*" = 'get configmap ${name} --namespace drover --output jsonpath={.data.${field}}' ] && printf '%s' '${text}' && exit 0`;
  const script = [
    "#!/bin/sh",
    configMap("drover-issuer-keys", "keys\\.pem", pem.toString()),
    configMap("kube-root-ca.crt", "ca\\.crt", vault.caPem),
    "exit 1",
  ].join("\n");
  await writeFile(join(programs, "kubectl"), script);
  await chmod(join(programs, "kubectl"), 0o755);
}

function openAccess(): VaultAccess {
  const settings = loadConfig(z.object(vaultSettings), {
    DROVER_VAULT_ADDRESS: vault.address,
    DROVER_VAULT_CA: vault.caPem,
    DROVER_VAULT_TOKEN_FILE: join(folder, "pod-token"),
  });
  const tokens = {
    vaultToken: async (request: { token: string; vault: string }) => {
      const [ten, sub] = request.token.split("/");
      const claims = { sub, ten, vlt: request.vault, vid: `${ten}:${request.vault}` };
      const times = { nowMs: Date.now(), lifeSeconds: 60 };
      const vaultToken = await signToken(key, AUDIENCES.vault, claims, times);
      return { vaultToken, expiresAt: Date.now() + 60_000 };
    },
  };
  const opened = openVault(settings, { tokens, clock: systemClock });
  if (opened === undefined) throw new Error("no vault");
  return opened;
}

/** Runs the next block of the guide, which must be the one meant. */
async function runNext(about: string): Promise<void> {
  const block = blocks.shift() ?? "";
  expect(block).toContain(about);
  await run("bash", ["-euo", "pipefail", "-c", block], {
    cwd: folder,
    env: {
      PATH: `${join(folder, "bin")}:${process.env["PATH"] ?? ""}`,
      HOME: folder,
      VAULT_ADDR: vault.address,
      VAULT_CACERT: vault.caFile,
      VAULT_TOKEN: vault.rootToken,
    },
  });
}

async function readTracker(tenant = "team-a") {
  const { value, version } = await access.source.read({
    tenant,
    vault: "team",
    entry: { name: "tracker", vaultRef: { path: "tracker", key: "token" } },
    session: { id: `sesn_${tenant}`, token: new Secret(`${tenant}/sesn_${tenant}`) },
  });
  return { value: value.reveal(), version };
}

it("steps 1 and 2: a session reads what was written for it", async () => {
  await runNext("kubectl get configmap");
  await runNext("vault auth enable jwt");
  await runNext("vault policy write drover-session");
  await runNext("vault kv put");

  expect(await readTracker()).toEqual({ value: VALUES.first, version: "1" });
});

it("a session of another namespace does not, whatever it asks for", async () => {
  await expect(readTracker("team-b")).rejects.toMatchObject({ code: "CREDENTIAL_NOT_FOUND" });

  const claims = { sub: "sesn_x", ten: "team-b", vlt: "team", vid: "team-b:team" };
  const times = { nowMs: Date.now(), lifeSeconds: 60 };
  const jwt = await signToken(key, AUDIENCES.vault, claims, times);
  const login = await vault.ask("POST", "auth/jwt/login", { role: "drover-session", jwt });
  const { client_token: token } = login.body["auth"] as { client_token: string };
  const stolen = await vault.ask("GET", "kv/data/t/team-a/v/team/tracker", undefined, token);

  expect(stolen.status).toBe(403);
});

it("a write that names no version is refused, so that nobody overwrites unseen", async () => {
  const write = vault.api("POST", "kv/data/t/team-a/v/team/tracker", { data: { token: "x" } });

  await expect(write).rejects.toThrow(/check-and-set parameter required/);
});

it("step 4: a pod of the pool reads the model key as itself, and nothing of sessions", async () => {
  await runNext("kubectl get configmap kube-root-ca.crt");
  await runNext("vault auth enable kubernetes");
  await vault.api("POST", "auth/kubernetes/config", {
    kubernetes_host: await startTokenReviews(),
    token_reviewer_jwt: await podToken("https://kubernetes.default.svc"),
    kubernetes_ca_cert: vault.caPem,
  });

  const modelKey = await access.poolKey({ path: "pools/default/model", key: "api-key" }).read();
  const other = access.poolKey({ path: "t/team-a/v/team/tracker", key: "token" }).read();

  expect(modelKey.value.reveal()).toBe(VALUES.model);
  await expect(other).rejects.toMatchObject({ details: { status: 403 }, retryable: false });
});

it("a token of the pod for another audience gets nothing", async () => {
  const login = async (audience: string) => {
    const body = { role: "drover-pool", jwt: await podToken(audience) };
    return (await vault.ask("POST", "auth/kubernetes/login", body)).status;
  };

  expect(await login(AUDIENCES.vault)).toBe(200);
  expect(await login("https://kubernetes.default.svc")).toBe(403);
});

it("rotation and revocation: the next read sees them", async () => {
  await runNext("-cas=1");
  expect(await readTracker()).toEqual({ value: VALUES.second, version: "2" });

  await runNext("vault kv metadata delete");
  await expect(readTracker()).rejects.toMatchObject({ code: "CREDENTIAL_NOT_FOUND" });
  expect(blocks).toEqual([]);
});

const SUBJECT = "system:serviceaccount:drover:drover-pool-default";

/** What the kubelet projects: only its claims are read here, the review says whether it is good. */
async function podToken(audience: string = AUDIENCES.vault): Promise<string> {
  const claims = {
    iss: "https://kubernetes.default.svc",
    sub: SUBJECT,
    "kubernetes.io": {
      namespace: "drover",
      serviceaccount: { name: "drover-pool-default", uid: "sa-uid" },
    },
  };
  const { privateKey } = await generateKeyPair("ES256");
  return await new SignJWT(claims)
    .setProtectedHeader({ alg: "ES256" })
    .setAudience([audience])
    .setIssuedAt()
    .setExpirationTime("10 min")
    .sign(privateKey);
}

/** The one call of the Kubernetes API that the vault makes. */
async function startTokenReviews(): Promise<string> {
  kubernetes = createServer((request, response) => {
    request.resume();
    request.once("end", () => {
      const status = {
        authenticated: request.url === "/apis/authentication.k8s.io/v1/tokenreviews",
        audiences: [AUDIENCES.vault],
        user: { username: SUBJECT, uid: "sa-uid", groups: ["system:serviceaccounts"] },
      };
      const review = { apiVersion: "authentication.k8s.io/v1", kind: "TokenReview", status };
      response.writeHead(201, { "content-type": "application/json" }).end(JSON.stringify(review));
    });
  });
  await new Promise<void>((resolve) => kubernetes.listen(0, "127.0.0.1", resolve));
  return `http://127.0.0.1:${(kubernetes.address() as AddressInfo).port}`;
}
