import { expect, it } from "@jest/globals";
import { generateSigningKey } from "../protocol/tokens.ts";
import { loadConfig } from "../runtime/config.ts";
import { checkFolders, sandboxConfig } from "./config.ts";

const key = generateSigningKey("k1");

async function environment(change: Record<string, string> = {}) {
  const { publicJwk } = await key;
  return {
    DROVER_PUBLIC_KEYS: JSON.stringify({ keys: [publicJwk] }),
    DROVER_SANDBOX_ID: "pod-uid",
    ...change,
  };
}

it("has defaults for everything but keys and identity", async () => {
  const config = loadConfig(sandboxConfig, await environment());

  expect(config).toMatchObject({
    port: 7080,
    host: "0.0.0.0",
    workspace: "/workspace",
    journalDir: "/var/lib/drover",
    parentPipe: false,
  });
  expect(config.publicKeys.keys[0]).toEqual((await key).publicJwk);
});

it.each([
  { name: "keys that are no JSON", env: { DROVER_PUBLIC_KEYS: "x" }, want: "JWKS" },
  { name: "no key at all", env: { DROVER_PUBLIC_KEYS: '{"keys":[]}' }, want: "JWKS" },
  { name: "a relative workspace", env: { DROVER_WORKSPACE: "work" }, want: "DROVER_WORKSPACE" },
  { name: "a port that is none", env: { DROVER_SANDBOX_PORT: "x" }, want: "DROVER_SANDBOX_PORT" },
])("names the variable: $name", async ({ env, want }) => {
  const given = await environment(env);

  expect(() => loadConfig(sandboxConfig, given)).toThrow(want);
});

it("refuses a private key, which a sandbox must never hold", async () => {
  const { privateJwk } = await key;
  const given = await environment({ DROVER_PUBLIC_KEYS: JSON.stringify({ keys: [privateJwk] }) });

  expect(() => loadConfig(sandboxConfig, given)).toThrow("is a private key");
});

it.each([
  { workspace: "/w", journalDir: "/w" },
  { workspace: "/w", journalDir: "/w/j" },
])("refuses a journal inside the workspace: %j", (folders) => {
  expect(() => checkFolders(folders)).toThrow(expect.objectContaining({ code: "CONFIG_INVALID" }));
});

it.each([
  { workspace: "/w", journalDir: "/w2" },
  { workspace: "/a/w", journalDir: "/a/j" },
])("takes a journal beside the workspace: %j", (folders) => {
  expect(() => checkFolders(folders)).not.toThrow();
});
