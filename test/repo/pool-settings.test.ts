import { describe, expect, it } from "@jest/globals";
import { harnessPoolSpec } from "../../src/api/harness-pool.ts";
import { harnessConfig } from "../../src/harness/config.ts";
import { buildEdgeDeployment } from "../../src/operator/edge/resources.ts";
import { buildDeployment } from "../../src/operator/harness-pool/resources.ts";
import type { InstallSettings } from "../../src/operator/install-settings.ts";
import { proxyConfig } from "../../src/proxy/config.ts";
import { edgeConfig } from "../../src/proxy/edge/config.ts";
import { type ConfigSchema, configMeta, loadConfig } from "../../src/runtime/config.ts";
import { anInstall } from "../builders/install.ts";

/** What the operator sets in pods is what their processes read: the two cannot drift apart. */

const edge = {
  replicas: 2,
  inClusterServers: ["git.team-a.svc:8080"],
  resources: { cpu: "50m", memory: "256Mi" },
};
const everything = anInstall({
  redis: {
    url: "redis://redis:6379",
    users: {
      harness: { username: "harness", secret: { name: "redis", key: "harness" } },
      proxy: { username: "proxy", secret: { name: "redis", key: "proxy" } },
      edge: { username: "edge", secret: { name: "redis", key: "edge" } },
    },
    caSecret: { name: "authority", key: "ca.pem" },
    commit: "fsync",
  },
  vault: {
    address: "https://vault:8200",
    caSecret: { name: "vault-authority", key: "ca.pem" },
    namespace: "teams/agents",
    kvMount: "kv",
    jwtMount: "jwt",
    sessionRole: "drover-session",
    kubernetesMount: "kubernetes",
    poolRole: "drover-pool",
    sessionIdentity: "pod",
  },
  edge,
});
const keyInSecret = { baseUrl: "http://model:8080", apiKeySecret: { name: "key" } };
const keyInVault = {
  baseUrl: "http://model:8080",
  apiKeyVaultRef: { path: "pools/default/model", key: "token" },
};

function containersOf(install: InstallSettings, model: object) {
  const spec = harnessPoolSpec.parse({ model, inClusterServers: [{ host: "Mcp.x", port: 80 }] });
  const pool = buildDeployment({ name: "default", code: "ab12" }, spec, install).spec.template.spec;
  const { containers } = buildEdgeDeployment(install, edge).spec.template.spec;
  const schemas: Readonly<Record<string, ConfigSchema>> = {
    harness: harnessConfig,
    proxy: proxyConfig,
    edge: edgeConfig,
  };
  return [...pool.containers, ...(pool.initContainers ?? []), ...containers].map((container) => {
    const schema = schemas[container.name];
    if (schema === undefined) throw new Error(`no process is called ${container.name}`);
    return { container, schema };
  });
}

describe.each([
  { name: "the least", install: anInstall(), model: { baseUrl: "http://model:8080" } },
  { name: "the model key in a Secret", install: everything, model: keyInSecret },
  { name: "the model key in the vault", install: everything, model: keyInVault },
])("with $name", ({ install, model }) => {
  const containers = containersOf(install, model);

  it("three processes are started", () => {
    expect(containers.map(({ container }) => container.name)).toEqual(["harness", "proxy", "edge"]);
  });

  it("each starts with the settings of its container", () => {
    for (const { container, schema } of containers) {
      const { env = [] } = container;
      // The files are in the pod, not here.
      const secrets = /^DROVER_(REDIS_PASSWORD|REDIS_CA|VAULT_CA)_FILE$/;
      const set = env
        .filter(({ name }) => !secrets.test(name))
        .map(({ name, value }) => [name, value ?? "from-the-pod"]);

      expect(() => loadConfig(schema, Object.fromEntries(set))).not.toThrow();
    }
  });

  it("each knows every variable that is set for it", () => {
    for (const { container, schema } of containers) {
      const known = new Set(
        Object.entries(schema.shape).map(([field, type]) => configMeta(field, type).env),
      );
      const unknown = (container.env ?? [])
        .map(({ name }) => name.replace(/_FILE$/, ""))
        .filter((name) => !known.has(name) && !known.has(`${name}_FILE`));

      expect({ process: container.name, unknown }).toEqual({
        process: container.name,
        unknown: [],
      });
    }
  });
});

it("a file is where the variable says, also where it is the process' own default", () => {
  for (const { container, schema } of containersOf(everything, keyInSecret)) {
    const folders = (container.volumeMounts ?? []).map(({ mountPath }) => `${mountPath}/`);
    const set = (container.env ?? []).filter(({ name }) => name.endsWith("_FILE"));
    const fallbacks = Object.entries(schema.shape)
      .filter(([field, type]) => configMeta(field, type).env.endsWith("_FILE"))
      .map(([, type]) => type.safeParse(undefined).data)
      .filter((path) => path !== undefined);
    const paths = [...set.map(({ value }) => value), ...fallbacks].map(String);

    expect(paths.filter((path) => !folders.some((folder) => path.startsWith(folder)))).toEqual([]);
  }
});
