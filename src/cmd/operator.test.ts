import { expect, it } from "@jest/globals";
import type { V1Container } from "@kubernetes/client-node";
import { aPool } from "../../test/builders/kinds.ts";
import { harnessConfig } from "../harness/config.ts";
import { buildDeployment } from "../operator/harness-pool/resources.ts";
import { proxyConfig } from "../proxy/config.ts";
import { configMeta, loadConfig } from "../runtime/config.ts";

const { spec: pool } = aPool({
  model: { apiKeySecret: { name: "model-key" } },
  inClusterServers: [{ host: "MCP.local", port: 8080 }],
});
const { spec } = buildDeployment({ name: "default", code: "ab12" }, pool, {
  namespace: "drover",
  image: "drover:1",
  imagePullPolicy: "IfNotPresent",
  imagePullSecrets: [],
  logLevel: "info",
  redis: {
    url: "redis://valkey:6379",
    username: "harness",
    secret: { name: "redis", key: "pw" },
    commit: "replicas:1",
  },
  lease: { ttlMs: 800, renewMs: 200 },
  issuer: { url: "https://issuer:7443", certificate: "-----BEGIN CERTIFICATE-----" },
}).spec.template;

function environment(container: V1Container | undefined): Record<string, string> {
  return Object.fromEntries(
    (container?.env ?? []).map(({ name, value }) => [name, value ?? "from-the-pod"]),
  );
}

it.each([
  { name: "harness", container: spec.containers[0], schema: harnessConfig },
  { name: "proxy", container: spec.initContainers?.[0], schema: proxyConfig },
])(
  "the $name knows every variable its pod sets, and takes their values",
  ({ container, schema }) => {
    const env = environment(container);
    const known = Object.entries(schema.shape).map(([field, type]) => configMeta(field, type).env);

    const unknown = Object.keys(env).filter(
      (name) => !known.includes(name) && !known.includes(name.replace(/_FILE$/, "")),
    );
    // The mounted files are not here.
    const readable = { ...env, DROVER_REDIS_PASSWORD_FILE: "" };

    expect(unknown).toEqual([]);
    expect(Object.keys(env).length).toBeGreaterThan(5);
    expect(() => loadConfig(schema, readable)).not.toThrow();
  },
);
