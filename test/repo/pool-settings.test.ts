import { expect, it } from "@jest/globals";
import { harnessPoolSpec } from "../../src/api/harness-pool.ts";
import { harnessConfig } from "../../src/harness/config.ts";
import { buildDeployment } from "../../src/operator/harness-pool/resources.ts";
import { proxyConfig } from "../../src/proxy/config.ts";
import { type ConfigSchema, configMeta, loadConfig } from "../../src/runtime/config.ts";
import { anInstall } from "../builders/install.ts";

/** What the operator sets in harness pods is what their processes read: the two cannot drift apart. */
const deployment = buildDeployment(
  { name: "default", code: "ab12" },
  harnessPoolSpec.parse({ model: { baseUrl: "http://model:8080", apiKeySecret: { name: "key" } } }),
  anInstall({
    redis: {
      url: "redis://redis:6379",
      users: {
        harness: { username: "harness", secret: { name: "redis", key: "harness" } },
        proxy: { username: "proxy", secret: { name: "redis", key: "proxy" } },
        edge: {},
      },
      caSecret: { name: "authority", key: "ca.pem" },
      commit: "fsync",
    },
  }),
);
const pod = deployment.spec.template.spec;

it.each([
  { process: "harness", schema: harnessConfig, container: pod.containers[0] },
  { process: "proxy", schema: proxyConfig, container: pod.initContainers?.[0] },
])("the $process starts with the settings of its container", ({ process, schema, container }) => {
  const env = Object.fromEntries(
    (container?.env ?? []).map(({ name, value }) => [name, value ?? "from-the-pod"]),
  );
  // The files are in the pod, not here.
  const { DROVER_REDIS_PASSWORD_FILE: password, DROVER_REDIS_CA_FILE: ca, ...rest } = env;

  expect(password).toBe(`/var/run/secrets/drover/redis-${process}/password`);
  expect(ca).toBe("/var/run/secrets/drover/redis-ca/ca.crt");
  expect(() => loadConfig(schema as ConfigSchema, rest)).not.toThrow();
});

it.each([
  { process: "harness", schema: harnessConfig, container: pod.containers[0] },
  { process: "proxy", schema: proxyConfig, container: pod.initContainers?.[0] },
])("the $process knows every variable that is set for it", ({ schema, container }) => {
  const known = new Set(
    Object.entries((schema as ConfigSchema).shape).map(
      ([name, field]) => configMeta(name, field).env,
    ),
  );

  const unknown = (container?.env ?? [])
    .map(({ name }) => name.replace(/_FILE$/, ""))
    .filter((name) => !known.has(name) && !known.has(`${name}_FILE`));

  expect(unknown).toEqual([]);
});
