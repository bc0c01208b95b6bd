import { eventually } from "../eventually.ts";
import { apply, get, kubectl, processesOf, run } from "./cluster.ts";
import { VAULT } from "./installation.ts";

/** A real Vault in the cluster, with TLS and a store that outlives its container. */

const image = process.env["DROVER_VAULT_IMAGE"] ?? "drover.test/vault:1";
const POD = "vault-0";

const CONFIG = `
storage "file" { path = "/vault/data" }
listener "tcp" {
  address       = "0.0.0.0:8200"
  tls_cert_file = "/vault/tls/tls.crt"
  tls_key_file  = "/vault/tls/tls.key"
}
disable_mlock = true
api_addr      = "${VAULT.address}"
`;

export interface VaultPod {
  /** Runs `vault …` beside the server, logged in as root; throws with its words. */
  run: (args: readonly string[], input?: string) => Promise<string>;
  seal(): Promise<void>;
  unseal(): Promise<void>;
  /** Kills the process, as the kernel would; the next one has the old data, and is sealed. */
  restart(): Promise<void>;
}

/** Starts it in the namespace of `VAULT`, initialised and unsealed. */
export async function startVault(tls: Record<string, string>): Promise<VaultPod> {
  await applyVault(tls);
  await kubectl(["rollout", "status", "statefulset/vault", "-n", VAULT.namespace, "--timeout=90s"]);
  const init = ["operator", "init", "-key-shares=1", "-key-threshold=1", "-format=json"];
  const made = JSON.parse(
    await eventually("vault answers", () => exec(init), { withinMs: 60_000 }),
  ) as {
    unseal_keys_b64: string[];
    root_token: string;
  };
  const login = () => exec(["login", "-no-print", "-"], made.root_token);
  const unseal = async () => {
    await exec(["operator", "unseal", made.unseal_keys_b64[0] ?? ""]);
    await eventually(
      "vault serves",
      async () => {
        await login();
        return true;
      },
      { withinMs: 60_000 },
    );
  };
  await unseal();
  return {
    run: exec,
    seal: async () => {
      await exec(["operator", "seal"]);
    },
    unseal,
    restart: async () => {
      const { metadata } = await get("pod", VAULT.namespace, POD);
      for (const pid of processesOf(metadata.uid, "server")) process.kill(pid, "SIGKILL");
      await eventually(
        "vault is up again, sealed",
        async () => {
          const { stdout } = await run("kubectl", execArguments(["status", "-format=json"]));
          return (JSON.parse(stdout) as { sealed: boolean }).sealed;
        },
        { withinMs: 90_000 },
      );
    },
  };
}

function execArguments(args: readonly string[]): string[] {
  return ["exec", "-i", "-n", VAULT.namespace, POD, "--", "vault", ...args];
}

async function exec(args: readonly string[], input?: string): Promise<string> {
  return await kubectl(execArguments(args), input);
}

async function applyVault(tls: Record<string, string>): Promise<void> {
  const labels = { app: "vault" };
  const metadata = { name: "vault" };
  const { namespace } = VAULT;
  const subject = { kind: "ServiceAccount", name: "vault", namespace };
  await apply(
    namespace,
    { apiVersion: "v1", kind: "ServiceAccount", metadata },
    {
      apiVersion: "rbac.authorization.k8s.io/v1",
      kind: "ClusterRoleBinding",
      metadata: { name: "e2e-vault-reviews-tokens" },
      roleRef: {
        apiGroup: "rbac.authorization.k8s.io",
        kind: "ClusterRole",
        name: "system:auth-delegator",
      },
      subjects: [subject],
    },
    { apiVersion: "v1", kind: "Secret", metadata: { name: "vault-tls" }, stringData: tls },
    { apiVersion: "v1", kind: "ConfigMap", metadata, data: { "vault.hcl": CONFIG } },
    {
      apiVersion: "v1",
      kind: "Service",
      metadata,
      spec: { selector: labels, publishNotReadyAddresses: true, ports: [{ port: VAULT.port }] },
    },
    {
      apiVersion: "apps/v1",
      kind: "StatefulSet",
      metadata,
      spec: {
        serviceName: "vault",
        selector: { matchLabels: labels },
        template: { metadata: { labels }, spec: podSpec() },
      },
    },
  );
}

function podSpec(): object {
  return {
    serviceAccountName: "vault",
    terminationGracePeriodSeconds: 1,
    securityContext: {
      runAsNonRoot: true,
      runAsUser: 100,
      runAsGroup: 1000,
      fsGroup: 1000,
      seccompProfile: { type: "RuntimeDefault" },
    },
    containers: [
      {
        name: "vault",
        image,
        imagePullPolicy: "IfNotPresent",
        args: ["server", "-config=/vault/config/vault.hcl"],
        env: [
          { name: "VAULT_ADDR", value: `https://127.0.0.1:${VAULT.port}` },
          { name: "VAULT_CACERT", value: "/vault/tls/tls.crt" },
        ],
        readinessProbe: { tcpSocket: { port: VAULT.port }, periodSeconds: 1 },
        securityContext: { allowPrivilegeEscalation: false, capabilities: { drop: ["ALL"] } },
        volumeMounts: [
          { name: "data", mountPath: "/vault/data" },
          { name: "tmp", mountPath: "/tmp" },
          { name: "config", mountPath: "/vault/config", readOnly: true },
          { name: "tls", mountPath: "/vault/tls", readOnly: true },
        ],
      },
    ],
    volumes: [
      { name: "data", emptyDir: {} },
      { name: "tmp", emptyDir: {} },
      { name: "config", configMap: { name: "vault" } },
      { name: "tls", secret: { secretName: "vault-tls" } },
    ],
  };
}
