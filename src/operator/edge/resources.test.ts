import { describe, expect, it } from "@jest/globals";
import { anInstall } from "../../../test/builders/install.ts";
import { HARNESS_UID, PROXY_UID } from "../harness-pool/resources.ts";
import type { EdgeSettings, InstallSettings } from "../install-settings.ts";
import { buildEdgeDeployment, EDGE_PODS } from "./resources.ts";

const edge: EdgeSettings = {
  replicas: 2,
  inClusterServers: ["git.team-a.svc:8080"],
  resources: { cpu: "50m", memory: "256Mi" },
};

function built(changes: Partial<InstallSettings> = {}) {
  const deployment = buildEdgeDeployment(anInstall(changes), edge);
  const { template } = deployment.spec;
  const [container] = template.spec.containers;
  if (container === undefined) throw new Error("the edge has a container");
  const env = new Map((container.env ?? []).map(({ name, value }) => [name, value]));
  return { deployment, template, pod: template.spec, container, env };
}

const vault = { address: "https://vault:8200", sessionIdentity: "session" as const };

describe("the edge's pods", () => {
  it("run under the edge's own account and UID, with no token but those for issuer and API", () => {
    const { pod, container } = built({ vault });

    expect(pod.serviceAccountName).toBe("drover-edge");
    expect(pod.automountServiceAccountToken).toBe(false);
    expect([HARNESS_UID, PROXY_UID]).not.toContain(container.securityContext?.runAsUser);
    const audiences = pod.volumes?.flatMap(({ projected }) =>
      (projected?.sources ?? []).flatMap(({ serviceAccountToken: token }) =>
        token === undefined ? [] : [token.audience ?? "the API server"],
      ),
    );
    expect(audiences).toEqual(["drover-issuer", "the API server"]);
  });

  it("have a token for the vault only where sessions are read with the pod's identity", () => {
    const { pod, env } = built({ vault: { ...vault, sessionIdentity: "pod" } });

    expect(env.get("DROVER_VAULT_TOKEN_FILE")).toBe("/var/run/secrets/drover/vault/token");
    expect(pod.volumes).toContainEqual({
      name: "vault-token",
      projected: {
        sources: [
          { serviceAccountToken: { audience: "vault", expirationSeconds: 600, path: "token" } },
        ],
      },
    });
    expect(built({ vault }).env.has("DROVER_VAULT_TOKEN_FILE")).toBe(false);
  });

  it("know the servers that may have private addresses, and no other list", () => {
    expect(built().env.get("DROVER_IN_CLUSTER_SERVERS")).toBe("git.team-a.svc:8080");
  });

  it("are selected by labels that never change, and take turns in a rolling update", () => {
    const { deployment, template } = built();

    expect(deployment.spec.selector.matchLabels).toEqual(EDGE_PODS);
    expect(template.metadata.labels).toMatchObject(EDGE_PODS);
    expect(deployment.spec.strategy.rollingUpdate).toEqual({ maxUnavailable: 0, maxSurge: 1 });
  });

  it("mount every file that a variable names, and name no Secret in the environment", () => {
    const { container } = built({
      vault: { ...vault, caSecret: { name: "vault-authority", key: "ca.pem" } },
      redis: {
        url: "rediss://r:6380",
        users: {
          harness: { secret: { name: "redis", key: "harness-pw" } },
          proxy: { secret: { name: "redis", key: "proxy-pw" } },
          edge: { username: "edge", secret: { name: "redis", key: "edge-pw" } },
        },
        commit: "fsync",
      },
    });

    const folders = container.volumeMounts?.map(({ mountPath }) => `${mountPath}/`) ?? [];
    const files = (container.env ?? []).filter(({ name }) => name.endsWith("_FILE"));
    const mounted = files.filter(({ value = "" }) => folders.some((one) => value.startsWith(one)));
    expect(mounted.map(({ name }) => name)).toEqual([
      "DROVER_REDIS_PASSWORD_FILE",
      "DROVER_VAULT_CA_FILE",
    ]);
    expect(files).toHaveLength(2);
    const sources = (container.env ?? []).flatMap(({ valueFrom }) => valueFrom ?? []);
    expect(sources).toEqual([{ fieldRef: { apiVersion: "v1", fieldPath: "metadata.uid" } }]);
  });
});
