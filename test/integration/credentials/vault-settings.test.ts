import { spawn } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { afterAll, beforeAll, expect, it } from "@jest/globals";
import { openCredentialSources } from "../../../src/cmd/credential-sources.ts";
import { createSelfSignedCertificate } from "../../../src/operator/issuer/certificate.ts";
import { proxyConfig } from "../../../src/proxy/config.ts";
import { createProxyMetrics } from "../../../src/proxy/metrics.ts";
import { loadConfig } from "../../../src/runtime/config.ts";
import { createLogger } from "../../../src/runtime/logger.ts";
import { Registry } from "../../../src/runtime/metrics.ts";

/** What a proxy makes of its settings for a vault, before it asks one. */

let folder: string;
let env: Record<string, string>;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "drover-vault-settings-"));
  const { cert } = createSelfSignedCertificate("localhost", Date.now());
  const authority = join(folder, "ca.crt");
  await writeFile(authority, cert);
  env = {
    DROVER_POD_UID: "pod-1",
    DROVER_ISSUER_URL: "https://127.0.0.1:1",
    DROVER_ISSUER_CERTIFICATE: cert,
    DROVER_REDIS_URL: "redis://127.0.0.1:1",
    DROVER_API_CA_FILE: authority,
    DROVER_PROXY_HEALTH_HOST: "127.0.0.1",
    DROVER_PROXY_HEALTH_PORT: "0",
    DROVER_PROXY_PORT: "0",
  };
});
afterAll(async () => await rm(folder, { recursive: true }));

async function openedWith(more: Record<string, string>) {
  const lines: string[] = [];
  const registry = new Registry();
  const destination = { write: (line: string) => lines.push(line) };
  const sources = openCredentialSources(loadConfig(proxyConfig, { ...env, ...more }), {
    tokens: { vaultToken: () => Promise.reject(new Error("not asked")) },
    logger: createLogger({ level: "info", process: "proxy", destination }),
    metrics: createProxyMetrics(registry),
  });
  await sources.close();
  const gauge = /^drover_vault_pod_identity (\d)$/m.exec(await registry.metrics())?.[1];
  return { hasVault: sources.vault !== undefined, gauge, log: lines.join("") };
}

const address = { DROVER_VAULT_ADDRESS: "https://vault.example:8200" };

it("an install without a vault has none", async () => {
  expect(await openedWith({})).toEqual({ hasVault: false, gauge: "0", log: "" });
});

it("a vault is asked as the session, unless the install declares otherwise", async () => {
  expect(await openedWith(address)).toEqual({ hasVault: true, gauge: "0", log: "" });
});

it("the fallback to the pod's identity is told in the log and by a metric", async () => {
  const fallback = await openedWith({ ...address, DROVER_VAULT_SESSION_IDENTITY: "pod" });

  expect(fallback).toEqual({
    hasVault: true,
    gauge: "1",
    log: expect.stringContaining("cannot tell one session's from another's"),
  });
});

it.each([
  { DROVER_VAULT_ADDRESS: "vault:8200" },
  { DROVER_VAULT_ADDRESS: "https://user:password@vault" },
  { DROVER_VAULT_ADDRESS: "http://vault.example:8200" },
  { DROVER_VAULT_CA: "not a certificate" },
  { DROVER_VAULT_KV_MOUNT: "../sys" },
  { DROVER_VAULT_SESSION_ROLE: "a/b" },
  { DROVER_VAULT_SESSION_IDENTITY: "anyone" },
])("%j is refused at the start, with its name", (wrong) => {
  expect(() => loadConfig(proxyConfig, { ...env, ...address, ...wrong })).toThrow(
    expect.objectContaining({
      code: "CONFIG_INVALID",
      message: expect.stringContaining(Object.keys(wrong)[0] ?? ""),
    }),
  );
});

it("a model key in a vault that is not there ends the process with 2", async () => {
  const child = spawn(process.execPath, ["src/cmd/proxy.ts"], {
    env: { ...env, DROVER_MODEL_API_KEY_VAULT_PATH: "pools/default/model" },
    stdio: ["ignore", "ignore", "pipe"],
  });
  const ended = new Promise<number | null>((resolve) => child.once("close", resolve));
  const said = await text(child.stderr);

  expect(await ended).toBe(2);
  expect(said).toContain("DROVER_VAULT_ADDRESS is not");
});
