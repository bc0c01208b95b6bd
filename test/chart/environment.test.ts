import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "@jest/globals";
import type { V1Container } from "@kubernetes/client-node";
import { z } from "zod";
import { vaultSettings } from "../../src/credentials/vault/config.ts";
import { cleanupConfig } from "../../src/operator/cleanup-config.ts";
import { operatorConfig } from "../../src/operator/config.ts";
import { createSelfSignedCertificate } from "../../src/operator/issuer/certificate.ts";
import { type ConfigSchema, configMeta, loadConfig } from "../../src/runtime/config.ts";
import { scriptedModelConfig } from "../../src/scripted-model/config.ts";
import { CASES, CHART, containersOf, NAMESPACE, podTemplates, render } from "./helm.ts";

/** By the sub-command in `args`. */
const SCHEMAS: Readonly<Record<string, ConfigSchema>> = {
  operator: operatorConfig,
  "scripted-model": scriptedModelConfig,
  cleanup: cleanupConfig,
};

const secrets = mkdtempSync(join(tmpdir(), "drover-chart-env-"));
writeFileSync(join(secrets, "value"), "secret-of-a-mounted-file\n");
const authority = createSelfSignedCertificate("authority.test", Date.now()).cert.trim();
writeFileSync(join(secrets, "ca.crt"), authority);

afterAll(() => {
  rmSync(secrets, { recursive: true });
});

function schemaOf({ args = [] }: V1Container): ConfigSchema {
  const schema = SCHEMAS[args[0] ?? ""];
  if (schema === undefined) throw new Error(`no process is called by ${args.join(" ")}`);
  return schema;
}

/** The names a process reads. A secret stands in no value, so of it only the `_FILE` form. */
function namesOf(schema: ConfigSchema): string[] {
  return Object.entries(schema.shape).flatMap(([field, type]) => {
    const { env, secret } = configMeta(field, type);
    return secret === true ? [`${env}_FILE`] : [env, `${env}_FILE`];
  });
}

/** The environment as the kubelet would make it; a mounted secret is a file of this test. */
function environmentOf({ env = [] }: V1Container): Record<string, string> {
  return Object.fromEntries(
    env.map(({ name, value, valueFrom }) => {
      const path = valueFrom?.fieldRef?.fieldPath;
      if (path !== undefined) return [name, path === "metadata.namespace" ? NAMESPACE : "a-pod"];
      if (!name.endsWith("_FILE")) return [name, value ?? ""];
      return [name, join(secrets, name.endsWith("_CA_FILE") ? "ca.crt" : "value")];
    }),
  );
}

async function ourContainers(values: readonly string[]): Promise<V1Container[]> {
  const containers = podTemplates(await render(values)).flatMap(containersOf);
  return containers.filter(({ name }) => name !== "valkey");
}

async function operatorSettings(values: readonly string[]) {
  const operator = (await ourContainers(values)).find(({ name }) => name === "operator");
  if (operator === undefined) throw new Error("the chart renders no operator");
  return loadConfig(operatorConfig, environmentOf(operator));
}

describe.each(CASES)("with $name", ({ values }) => {
  it("every variable is one its process reads, and no secret stands in one", async () => {
    for (const container of await ourContainers(values)) {
      const known = namesOf(schemaOf(container));
      const names = (container.env ?? []).map(({ name }) => name);

      expect(names.filter((name) => !known.includes(name))).toEqual([]);
      expect(new Set(names).size).toBe(names.length);
      for (const { valueFrom } of container.env ?? []) {
        expect(Object.keys(valueFrom ?? { fieldRef: true })).toEqual(["fieldRef"]);
      }
    }
  });

  it("every process accepts its configuration", async () => {
    for (const container of await ourContainers(values)) {
      expect(() => loadConfig(schemaOf(container), environmentOf(container))).not.toThrow();
    }
  });

  it("a file that a variable names is mounted", async () => {
    for (const template of podTemplates(await render(values))) {
      for (const { env = [], volumeMounts = [] } of containersOf(template)) {
        const folders = volumeMounts.map(({ mountPath }) => `${mountPath}/`);
        const files = env.filter(({ name }) => name.endsWith("_FILE"));
        for (const { value = "" } of files) {
          expect(folders.some((folder) => value.startsWith(folder))).toBe(true);
        }
        const volumes = template.spec.volumes?.map(({ name }) => name) ?? [];
        const claims = template.of.startsWith("StatefulSet") ? ["data"] : [];
        expect([...volumes, ...claims]).toEqual(
          expect.arrayContaining(volumeMounts.map(({ name }) => name)),
        );
      }
    }
  });
});

describe("the operator's settings", () => {
  it("come from the values, for a Redis of the user's", async () => {
    expect(await operatorSettings(["-f", `${CHART}/ci/production-values.yaml`])).toMatchObject({
      namespace: NAMESPACE,
      podName: "a-pod",
      imagePullPolicy: "Always",
      imagePullSecrets: ["registry-one", "registry-two"],
      redisUrl: "rediss://redis.data.svc:6380",
      redisUsername: "drover",
      redisSecret: "redis-login",
      redisHarnessUsername: "drover-harness",
      redisHarnessSecretKey: "harness-password",
      redisProxyUsername: "drover",
      redisProxySecretKey: "redis-password",
      redisEdgeUsername: "drover-edge",
      redisEdgeSecretKey: "redis-password",
      redisCa: authority,
      redisCaSecret: "redis-authority",
      redisCaSecretKey: "authority.pem",
      redisCommit: "replicas:2",
      leaseTtlMs: 800,
      leaseRenewMs: 200,
      issuerUrl: `https://drover-operator.${NAMESPACE}.svc:7443`,
      issuerSecret: "our-issuer-key",
      userNamespaces: false,
      leaderElection: true,
      logLevel: "warn",
    });
  });

  it("name the Valkey of the release, and the user of each process there", async () => {
    const settings = await operatorSettings(["-f", `${CHART}/values-eval.yaml`]);

    expect(settings).toMatchObject({
      redisUrl: `redis://drover-valkey.${NAMESPACE}.svc:6379`,
      redisUsername: "operator",
      redisSecret: "drover-valkey",
      redisHarnessUsername: "harness",
      redisHarnessSecretKey: "harness",
      redisProxyUsername: "proxy",
      redisProxySecretKey: "proxy",
      redisEdgeUsername: "edge",
      redisEdgeSecretKey: "edge",
    });
    expect(settings.redisPassword?.reveal()).toBe("secret-of-a-mounted-file");
    expect(settings.redisCa).toBeUndefined();
  });

  it("name no Redis user and no password where there are none", async () => {
    const settings = await operatorSettings(["-f", `${CHART}/ci/minimal-values.yaml`]);

    const redis = Object.entries(settings).filter(([name]) => /^redis.*(User|Secret$)/.test(name));
    expect(redis.filter(([, value]) => value !== undefined)).toEqual([]);
    expect(settings.redisPassword).toBeUndefined();
  });

  it("say how proxies reach the vault, and how large the edge is", async () => {
    expect(await operatorSettings(["-f", `${CHART}/ci/vault-values.yaml`])).toMatchObject({
      vaultAddress: "https://vault.vault.svc:8200",
      vaultCaSecret: "vault-authority",
      vaultCaSecretKey: "authority.pem",
      vaultNamespace: "teams/agents",
      vaultKvMount: "secret",
      vaultJwtMount: "jwt",
      vaultSessionRole: "sessions",
      vaultKubernetesMount: "kubernetes",
      vaultPoolRole: "drover-pool",
      vaultSessionIdentity: "pod",
      edgeReplicas: 5,
      edgeInClusterServers: ["git.forge.svc:3000", "git.team-a.svc:8080"],
      edgeCpu: "1",
      edgeMemory: "1Gi",
    });
  });

  it("of a vault are the defaults of who uses it, besides its address", async () => {
    const address = "https://vault:8200";
    const values = ["-f", `${CHART}/values-eval.yaml`, "--set", `vault.address=${address}`];
    const defaults = loadConfig(z.object(vaultSettings), { DROVER_VAULT_ADDRESS: address });
    const { vaultTokenFile, ...common } = defaults;

    expect(await operatorSettings(values)).toMatchObject(common);
    expect(vaultTokenFile).toBe("/var/run/secrets/drover/vault/token");
  });

  it("without a vault and an edge say so", async () => {
    const settings = await operatorSettings(["-f", `${CHART}/ci/minimal-values.yaml`]);

    expect(settings.vaultAddress).toBeUndefined();
    expect(settings.edgeReplicas).toBe(0);
  });

  it("of a large installation are whole numbers, not 1e+06", async () => {
    const values = ["-f", `${CHART}/values-eval.yaml`, "--set", "lease.ttlMs=60000"];

    expect((await operatorSettings(values)).leaseTtlMs).toBe(60_000);
  });
});
