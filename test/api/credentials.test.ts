import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "@jest/globals";
import { KubernetesSecretSource } from "../../src/credentials/kubernetes-secret/kubernetes-secret-source.ts";
import { SecretClient } from "../../src/credentials/kubernetes-secret/secret-client.ts";
import { LiveClient } from "../../src/kube/live-client.ts";
import { createKubeMetrics } from "../../src/kube/metrics.ts";
import { secrets } from "../../src/kube/resources.ts";
import { ISSUER_SECRET, loadIssuerKeys } from "../../src/operator/issuer/key-store.ts";
import { KubeTokenReviewer } from "../../src/operator/issuer/token-review.ts";
import { ISSUER_AUDIENCE } from "../../src/protocol/proxy-api.ts";
import { systemClock } from "../../src/runtime/clock.ts";
import { silentLogger } from "../../src/runtime/logger.ts";
import { Registry } from "../../src/runtime/metrics.ts";
import { systemRng } from "../../src/runtime/rng.ts";
import { type ApiServer, startApiServer } from "../cluster/api-server.ts";
import {
  credentialSourceContract,
  request,
  type SourceRig,
} from "../contracts/credential-source.ts";

const SYSTEM = "drover-system";
const POOL_ACCOUNT = "drover-pool-default";

let server: ApiServer;
let directory: string;
let client: LiveClient;

beforeAll(async () => {
  server = await startApiServer();
  directory = await mkdtemp(join(tmpdir(), "drover-api-credentials-"));
  client = new LiveClient({
    config: { from: "file", path: server.kubeconfigPath },
    userAgent: "drover-test/1",
    clock: systemClock,
    rng: systemRng,
    metrics: createKubeMetrics(new Registry()).restClient,
    logger: silentLogger,
  });
  for (const namespace of [SYSTEM, "team-a", "team-b"]) await kubectl("create", "ns", namespace);
  await kubectl("-n", SYSTEM, "create", "serviceaccount", POOL_ACCOUNT);
  await apply({
    apiVersion: "v1",
    kind: "Pod",
    metadata: { name: "harness-0", namespace: SYSTEM },
    spec: { serviceAccountName: POOL_ACCOUNT, containers: [{ name: "a", image: "none" }] },
  });
});

afterAll(async () => {
  client?.close();
  await server?.stop();
  if (directory !== undefined) await rm(directory, { recursive: true, force: true });
});

async function kubectl(...args: string[]): Promise<string> {
  const { code, stdout, stderr } = await server.kubectl(args);
  if (code !== 0) throw new Error(`kubectl ${args.join(" ")}: ${stderr}`);
  return stdout.trim();
}

async function apply(object: unknown): Promise<void> {
  const { code, stderr } = await server.kubectl(["apply", "-f", "-"], JSON.stringify(object));
  if (code !== 0) throw new Error(stderr);
}

/** A token as the kubelet projects it: bound to the harness pod. */
async function podToken(...audience: string[]): Promise<string> {
  const bound = ["--bound-object-kind", "Pod", "--bound-object-name", "harness-0"];
  const audiences = audience.map((name) => `--audience=${name}`);
  return await kubectl("-n", SYSTEM, "create", "token", POOL_ACCOUNT, ...bound, ...audiences);
}

async function grantSecret(name: string): Promise<void> {
  const metadata = { name: "drover-credentials", namespace: "team-a" };
  await apply({
    apiVersion: "rbac.authorization.k8s.io/v1",
    kind: "Role",
    metadata,
    rules: [{ apiGroups: [""], resources: ["secrets"], resourceNames: [name], verbs: ["get"] }],
  });
  await apply({
    apiVersion: "rbac.authorization.k8s.io/v1",
    kind: "RoleBinding",
    metadata,
    roleRef: { apiGroup: "rbac.authorization.k8s.io", kind: "Role", name: metadata.name },
    subjects: [{ kind: "ServiceAccount", name: POOL_ACCOUNT, namespace: SYSTEM }],
  });
}

async function poolSource() {
  const tokenFile = join(directory, "token");
  await writeFile(tokenFile, await podToken());
  const secretClient = new SecretClient({
    server: server.url,
    tokenFile,
    ca: await readFile(server.caPath, "utf8"),
  });
  return { source: new KubernetesSecretSource({ secrets: secretClient }), secretClient };
}

async function putSecret(tenant: string, name: string, key: string, value: string): Promise<void> {
  await client.apply(
    secrets,
    {
      apiVersion: "v1",
      kind: "Secret",
      metadata: { name, namespace: tenant },
      data: { [key]: Buffer.from(value).toString("base64") },
    },
    { fieldManager: "test", force: true },
  );
}

credentialSourceContract(
  "KubernetesSecretSource on a real API server",
  async (): Promise<SourceRig> => {
    const { source, secretClient } = await poolSource();
    await grantAll();
    return {
      source,
      put: putSecret,
      remove: async (tenant, name) => await client.delete(secrets, { namespace: tenant, name }),
      breakDown: async () => {
        await kubectl("delete", "clusterrolebinding", "drover-contract");
        await untilAnswer("no");
        isGranted = false;
      },
      close: async () => {
        await secretClient.close();
        for (const { metadata } of (await client.list(secrets, {})).items) {
          const { name, namespace = "" } = metadata;
          if (namespace.startsWith("team-")) await client.delete(secrets, { namespace, name });
        }
      },
    };
  },
);

let isGranted = false;

/** Every Secret of every namespace: the contract is not about rights. */
async function grantAll(): Promise<void> {
  if (isGranted) return;
  isGranted = true;
  const metadata = { name: "drover-contract" };
  await apply({
    apiVersion: "rbac.authorization.k8s.io/v1",
    kind: "ClusterRole",
    metadata,
    rules: [{ apiGroups: [""], resources: ["secrets"], verbs: ["get"] }],
  });
  await apply({
    apiVersion: "rbac.authorization.k8s.io/v1",
    kind: "ClusterRoleBinding",
    metadata,
    roleRef: { apiGroup: "rbac.authorization.k8s.io", kind: "ClusterRole", name: metadata.name },
    subjects: [{ kind: "ServiceAccount", name: POOL_ACCOUNT, namespace: SYSTEM }],
  });
  await untilAnswer("yes");
}

/** The API server's authorizer learns of a change through a watch of its own. */
async function untilAnswer(answer: "yes" | "no"): Promise<void> {
  const account = `system:serviceaccount:${SYSTEM}:${POOL_ACCOUNT}`;
  const question = ["auth", "can-i", "get", "secrets/docs-token", "--as", account];
  for (let tries = 0; tries < 200; tries += 1) {
    const { stdout } = await server.kubectl(["-n", "team-a", ...question]);
    if (stdout.trim() === answer) return;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  throw new Error(`the authorizer never said ${answer}`);
}

describe("a Role with one resource name", () => {
  it("lets the pool read that Secret and no other", async () => {
    await kubectl("delete", "clusterrolebinding", "drover-contract", "--ignore-not-found");
    await untilAnswer("no");
    await putSecret("team-a", "docs-token", "token", "CNRY-granted-value");
    await putSecret("team-a", "other", "token", "CNRY-other-value");
    await grantSecret("docs-token");
    const { source, secretClient } = await poolSource();
    const other = { name: "x", secretRef: { name: "other", key: "token" } };

    try {
      const granted = await until(async () => await source.read(request()));
      expect(granted.value.reveal()).toBe("CNRY-granted-value");
      await expect(source.read(request({ entry: other }))).rejects.toMatchObject({
        code: "CREDENTIAL_UNAVAILABLE",
        message: expect.stringContaining("resourceNames"),
      });
    } finally {
      await secretClient.close();
    }
  });
});

async function until<T>(attempt: () => Promise<T>): Promise<T> {
  for (let tries = 0; ; tries += 1) {
    try {
      return await attempt();
    } catch (error) {
      if (tries > 100) throw error;
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }
}

describe("KubeTokenReviewer on a real API server", () => {
  const reviewer = () => new KubeTokenReviewer({ client, clock: systemClock });

  it("names the pod and account of a projected token with the issuer's audience", async () => {
    const uid = await kubectl(
      "-n",
      SYSTEM,
      "get",
      "pod",
      "harness-0",
      "-o",
      "jsonpath={.metadata.uid}",
    );

    expect(await reviewer().review(await podToken(ISSUER_AUDIENCE))).toEqual({
      podUid: uid,
      serviceAccount: `${SYSTEM}/${POOL_ACCOUNT}`,
    });
  });

  it("refuses a token for the API server, one of no pod, and nonsense", async () => {
    const unbound = await kubectl(
      "-n",
      SYSTEM,
      "create",
      "token",
      POOL_ACCOUNT,
      `--audience=${ISSUER_AUDIENCE}`,
    );

    for (const token of [await podToken(), unbound, "nonsense"]) {
      await expect(reviewer().review(token)).rejects.toMatchObject({ code: "UNAUTHENTICATED" });
    }
  });
});

describe("the issuer's keys on a real API server", () => {
  it("are the same for replicas that start at once and after a restart", async () => {
    await kubectl("-n", SYSTEM, "create", "secret", "generic", ISSUER_SECRET);
    const replica = async () =>
      await loadIssuerKeys({
        client,
        namespace: SYSTEM,
        secretName: ISSUER_SECRET,
        clock: systemClock,
        rng: systemRng,
      });

    const together = await Promise.all([replica(), replica(), replica()]);
    const later = await replica();

    for (const keys of together) expect(keys).toEqual(later);
    const stored = await client.get(secrets, { namespace: SYSTEM, name: ISSUER_SECRET });
    expect(Object.keys(stored.data ?? {})).toEqual(
      expect.arrayContaining(["signing-key.json", "tls.crt", "tls.key"]),
    );
  });
});
