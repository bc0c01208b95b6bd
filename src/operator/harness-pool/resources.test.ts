import { describe, expect, it } from "@jest/globals";
import type { V1Container } from "@kubernetes/client-node";
import { anInstall } from "../../../test/builders/install.ts";
import { aPool } from "../../../test/builders/kinds.ts";
import type { InstallSettings, VaultAccess } from "../install-settings.ts";
import { buildDeployment, selectorOf, selectorText } from "./resources.ts";

const install = anInstall({
  redis: {
    url: "redis://valkey:6379",
    users: {
      harness: { username: "harness", secret: { name: "redis", key: "harness-pw" } },
      proxy: { username: "proxy", secret: { name: "redis", key: "proxy-pw" } },
      edge: { username: "edge", secret: { name: "redis", key: "edge-pw" } },
    },
    caSecret: { name: "authority", key: "ca.pem" },
    commit: "replicas:1",
  },
});
const vault: VaultAccess = {
  address: "https://vault:8200",
  caSecret: { name: "vault-authority", key: "ca.pem" },
  kvMount: "kv",
  sessionIdentity: "session",
};

function pod(spec: object = {}, changes: Partial<InstallSettings> = {}) {
  const { spec: pool } = aPool({ model: { apiKeySecret: { name: "model-key" } }, ...spec });
  const deployment = buildDeployment({ name: "default", code: "ab12" }, pool, {
    ...install,
    ...changes,
  });
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

    expect(mountsOf(harness)).toEqual(["redis-ca", "redis-harness", "tmp"]);
    expect(mountsOf(proxy)).toEqual([
      "api-token",
      "issuer-token",
      "model-key",
      "proxy-tmp",
      "redis-ca",
      "redis-proxy",
    ]);
  });

  it("each container logs in to Redis as itself, with a password that the other cannot read", () => {
    const { harness, proxy, spec } = pod();

    const loginOf = ({ env = [], volumeMounts = [] }: V1Container) => {
      const valueOf = (name: string) => env.find((variable) => variable.name === name)?.value;
      const file = valueOf("DROVER_REDIS_PASSWORD_FILE") ?? "";
      const mount = volumeMounts.find(({ mountPath }) => file.startsWith(`${mountPath}/`));
      const volume = spec.volumes?.find(({ name }) => name === mount?.name);
      return { user: valueOf("DROVER_REDIS_USERNAME"), keys: volume?.secret?.items };
    };
    expect(loginOf(harness)).toEqual({
      user: "harness",
      keys: [{ key: "harness-pw", path: "password" }],
    });
    expect(loginOf(proxy)).toEqual({
      user: "proxy",
      keys: [{ key: "proxy-pw", path: "password" }],
    });
    expect(JSON.stringify(spec)).not.toContain("edge-pw");
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

  it.each([
    { concurrency: 50, want: "256" },
    { concurrency: 1000, want: "2000" },
  ])("the sidecar takes the requests of $concurrency sessions at once", ({ concurrency, want }) => {
    const limit = pod({ concurrency }).proxy.env?.find(
      ({ name }) => name === "DROVER_PROXY_MAX_IN_FLIGHT",
    );

    expect(limit?.value).toBe(want);
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

    const built = buildDeployment({ name: "default", code: "ab12" }, spec, anInstall());

    const names = (built.spec.template.spec.volumes ?? []).map(({ name }) => name);
    expect(names).toEqual(["tmp", "proxy-tmp", "issuer-token", "api-token"]);
  });

  it("with a vault the harness gets no word of it, and the proxy no token of its own", () => {
    const { harness, proxy } = pod({}, { vault });

    expect(mountsOf(harness)).toEqual(["redis-ca", "redis-harness", "tmp"]);
    expect(JSON.stringify(harness.env)).not.toContain("VAULT");
    expect(mountsOf(proxy)).toContain("vault-ca");
    expect(mountsOf(proxy)).not.toContain("vault-token");
  });

  it.each([
    {
      name: "the pool's model key is there",
      spec: { model: { apiKeyVaultRef: { path: "pools/default/model", key: "api-key" } } },
      access: vault,
    },
    {
      name: "sessions are read with the pod's identity",
      spec: {},
      access: { ...vault, sessionIdentity: "pod" as const },
    },
  ])("the proxy alone has a token that only the vault takes, when $name", ({ spec, access }) => {
    const { harness, proxy, spec: built } = pod(spec, { vault: access });

    expect(mountsOf(harness)).not.toContain("vault-token");
    expect(mountsOf(proxy)).toContain("vault-token");
    const token = { audience: "vault", expirationSeconds: 600, path: "token" };
    expect(built.volumes).toContainEqual({
      name: "vault-token",
      projected: { sources: [{ serviceAccountToken: token }] },
    });
  });

  it("a model key in the vault is named by path, and no Secret is mounted for it", () => {
    const ref = { path: "pools/default/model", key: "api-key" };
    const { proxy } = pod({ model: { apiKeyVaultRef: ref } }, { vault });

    expect(proxy.env).toEqual(
      expect.arrayContaining([
        { name: "DROVER_MODEL_API_KEY_VAULT_PATH", value: "pools/default/model" },
        { name: "DROVER_MODEL_API_KEY_VAULT_KEY", value: "api-key" },
      ]),
    );
    expect(mountsOf(proxy)).not.toContain("model-key");
  });

  it("the harness knows the edge's address where there is an edge", () => {
    const resources = { cpu: "50m", memory: "256Mi" };
    const edge = { replicas: 2, inClusterServers: [], resources };
    const urlOf = ({ harness }: { harness: V1Container }) =>
      harness.env?.find(({ name }) => name === "DROVER_EDGE_URL")?.value;

    expect(urlOf(pod({}, { edge }))).toBe("http://drover-edge.drover.svc:7080");
    expect(urlOf(pod())).toBeUndefined();
  });
});
