import { describe, expect, it } from "@jest/globals";
import type { V1Container } from "@kubernetes/client-node";
import { aPool } from "../../../test/builders/kinds.ts";
import type { InstallSettings } from "../install-settings.ts";
import { buildDeployment, selectorOf, selectorText } from "./resources.ts";

const install: InstallSettings = {
  namespace: "drover",
  image: "drover:1",
  imagePullPolicy: "IfNotPresent",
  imagePullSecrets: ["registry"],
  logLevel: "info",
  redis: {
    url: "redis://valkey:6379",
    username: "harness",
    secret: { name: "redis", key: "pw" },
    caSecret: { name: "authority", key: "ca.pem" },
    commit: "replicas:1",
  },
  lease: { ttlMs: 800, renewMs: 200 },
  issuer: { url: "https://issuer:7443", certificate: "-----BEGIN CERTIFICATE-----" },
};

function pod(spec: object = {}) {
  const { spec: pool } = aPool({ model: { apiKeySecret: { name: "model-key" } }, ...spec });
  const deployment = buildDeployment({ name: "default", code: "ab12" }, pool, install);
  const [harness] = deployment.spec.template.spec.containers;
  const [proxy] = deployment.spec.template.spec.initContainers ?? [];
  if (harness === undefined || proxy === undefined) throw new Error("both containers");
  return { deployment, harness, proxy, spec: deployment.spec.template.spec };
}

const mountsOf = (container: V1Container) =>
  (container.volumeMounts ?? []).map(({ name }) => name).toSorted();

describe("the pods of a pool", () => {
  it("only the proxy mounts tokens and the model key; both use Redis", () => {
    const { harness, proxy } = pod();

    expect(mountsOf(harness)).toEqual(["redis", "redis-ca", "tmp"]);
    expect(mountsOf(proxy)).toEqual([
      "api-token",
      "issuer-token",
      "model-key",
      "proxy-tmp",
      "redis",
      "redis-ca",
    ]);
  });

  it("the key of a Secret becomes the file that the variable names", () => {
    const { harness, spec } = pod();

    const volume = spec.volumes?.find(({ name }) => name === "redis-ca");
    const mount = harness.volumeMounts?.find(({ name }) => name === "redis-ca");
    const file = harness.env?.find(({ name }) => name === "DROVER_REDIS_CA_FILE")?.value;
    expect(volume?.secret).toEqual({
      secretName: "authority",
      items: [{ key: "ca.pem", path: "ca.crt" }],
    });
    expect(`${mount?.mountPath}/ca.crt`).toBe(file);
  });

  it("no value of a secret and no reference to one is in any environment", () => {
    const { harness, proxy } = pod();

    for (const { valueFrom } of [...(harness.env ?? []), ...(proxy.env ?? [])]) {
      expect(valueFrom?.secretKeyRef).toBeUndefined();
    }
    expect([harness.envFrom, proxy.envFrom]).toEqual([undefined, undefined]);
  });

  it("the two containers cannot reach into each other", () => {
    const { harness, proxy, spec } = pod();

    expect(harness.securityContext?.runAsUser).not.toBe(proxy.securityContext?.runAsUser);
    expect(spec.shareProcessNamespace).toBe(false);
    expect(spec.securityContext?.fsGroup).toBeUndefined();
    expect(spec.automountServiceAccountToken).toBe(false);
  });

  it("the proxy is a native sidecar that has started before the harness does", () => {
    const { proxy } = pod();

    expect(proxy.restartPolicy).toBe("Always");
    expect(proxy.startupProbe).toBeDefined();
  });

  it("a rolling update adds a worker before it takes one away", () => {
    const { deployment } = pod();

    expect(deployment.spec.strategy.rollingUpdate).toEqual({ maxUnavailable: 0, maxSurge: 1 });
    expect(deployment.spec.template.spec.terminationGracePeriodSeconds).toBeGreaterThan(30);
    expect(deployment.spec.template.metadata.labels).toMatchObject(selectorOf("default"));
    expect(selectorText("default")).toContain("drover.dev/pool=default");
  });

  it("without a Redis password and a model key nothing is mounted for them", () => {
    const { spec } = aPool();
    const bare = { ...install, redis: { url: "redis://r:6379", commit: "fsync" } };

    const built = buildDeployment({ name: "default", code: "ab12" }, spec, bare);

    const names = (built.spec.template.spec.volumes ?? []).map(({ name }) => name);
    expect(names).toEqual(["tmp", "proxy-tmp", "issuer-token", "api-token"]);
  });
});
