import { readFileSync } from "node:fs";
import {
  apply,
  createNamespace,
  helm,
  kubectl,
  REDIS_PASSWORD,
  RELEASE,
  run,
  SYSTEM,
} from "./cluster.ts";
import { makeVaultTls } from "./vault-tls.ts";

const version = (JSON.parse(readFileSync("package.json", "utf8")) as { version: string }).version;
/** The Redis image of the test bed; a cluster that was handed in may have another. */
const redisImage = process.env["DROVER_REDIS_IMAGE"] ?? "drover.test/redis:7";

/** The model's key, whose Secret the platform team makes before it installs. */
export const MODEL_KEY = "e2e-marker-of-the-model-key";
export const MODEL_KEY_SECRET = "e2e-model-key";

/** The MCP server that credentials.test.ts starts: private addresses must be listed. */
export const NOTES = {
  namespace: "e2e-credentials",
  host: "notes.e2e-credentials.svc.cluster.local",
  port: 8080,
};

const NOTES_SERVERS = [NOTES.namespace, "e2e-vault"].map((namespace) => ({
  host: `notes.${namespace}.svc.cluster.local`,
  port: NOTES.port,
}));

/** Where vault.test.ts puts a Vault, and the git host beside it. */
export const VAULT = {
  namespace: "e2e-vault",
  host: "vault.e2e-vault.svc.cluster.local",
  port: 8200,
  address: "https://vault.e2e-vault.svc.cluster.local:8200",
  tlsSecret: "e2e-vault-tls",
};
export const GIT = { host: "git.e2e-vault.svc.cluster.local", port: 8080 };

/** Values of the evaluation set-up, as far as the test bed differs from them. */
export const installArguments = [
  "--set",
  `image.tag=${version}`,
  "--set",
  "valkey.enabled=true",
  "--set",
  `valkey.image=${redisImage}`,
  "--set",
  "valkey.command=redis-server",
  "--set",
  "valkey.storage=",
  "--set",
  `valkey.password=${REDIS_PASSWORD}`,
  "--set",
  "scriptedModel.enabled=true",
  "--set-file",
  "scriptedModel.scripts.e2e\\.yaml=test/e2e/scripts/e2e.yaml",
  "--set",
  "defaultPool.allowedNamespaces=All",
  "--set-json",
  `defaultPool.inClusterServers=${JSON.stringify(NOTES_SERVERS)}`,
  "--set-json",
  `edge.inClusterServers=${JSON.stringify([GIT])}`,
  "--set",
  `vault.address=${VAULT.address}`,
  "--set",
  `vault.caSecret=${VAULT.tlsSecret}`,
  "--set",
  `model.existingSecret=${MODEL_KEY_SECRET}`,
  // Two cores run the whole cluster: a worker may well be late by a second without being dead.
  "--set",
  "lease.ttlMs=3000",
  "--set",
  "lease.renewMs=1000",
];

/** What has to be there before the chart. */
export async function prepareSystem(): Promise<void> {
  await createNamespace(SYSTEM);
  await apply(
    SYSTEM,
    {
      apiVersion: "v1",
      kind: "Secret",
      metadata: { name: MODEL_KEY_SECRET },
      stringData: { "api-key": MODEL_KEY },
    },
    {
      apiVersion: "v1",
      kind: "Secret",
      metadata: { name: VAULT.tlsSecret },
      stringData: makeVaultTls(VAULT.host),
    },
  );
}

/** Installs the chart unless it is there; every file of tests begins with it. */
export async function ensureInstalled(): Promise<void> {
  const status = await run("helm", ["status", RELEASE, "-n", SYSTEM, "-o", "json"]);
  if (status.code === 0 && status.stdout.includes('"deployed"')) {
    await kubectl(["wait", "-n", SYSTEM, "hrp/default", "--for=condition=Ready", "--timeout=60s"]);
    return;
  }
  await prepareSystem();
  await helm([
    "upgrade",
    "--install",
    RELEASE,
    "charts/drover",
    "-n",
    SYSTEM,
    "--wait",
    "--timeout",
    "180s",
    ...installArguments,
  ]);
  await kubectl(["wait", "-n", SYSTEM, "hrp/default", "--for=condition=Ready", "--timeout=120s"]);
}

export const controlPlaneImage = `drover:${version}`;
export const sandboxImage = `drover-sandbox:${version}`;

export const template = {
  apiVersion: "drover.dev/v1alpha1",
  kind: "SandboxTemplate",
  metadata: { name: "default" },
  spec: {
    image: sandboxImage,
    resources: { cpu: "5m", memory: "256Mi", ephemeralStorage: "256Mi" },
    idleTimeoutSeconds: 3600,
  },
};

/** An AgentSession that plays a scenario. */
export function session(name: string, scenario: string, more: object = {}): object {
  return {
    apiVersion: "drover.dev/v1alpha1",
    kind: "AgentSession",
    metadata: { name },
    spec: {
      agent: { model: `scripted:${scenario}`, tools: [{ type: "agent_toolset_20260401" }] },
      messages: [{ text: "Do what the script says." }],
      sandboxTemplateRef: { name: "default" },
      ...more,
    },
  };
}
