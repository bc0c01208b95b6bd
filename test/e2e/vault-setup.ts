import { eventually } from "../eventually.ts";
import { get, SYSTEM } from "./cluster.ts";
import type { VaultPod } from "./vault-pod.ts";

/** What docs/guides/vault.md says, against the vault in the cluster. */
export async function setUpVault({ run }: VaultPod): Promise<void> {
  await run(["secrets", "enable", "-path=kv", "-version=2", "kv"]);
  await run(["auth", "enable", "jwt"]);
  const keys = await eventually(
    "the issuer's public keys",
    async () => {
      const { data } = (await get("configmap", SYSTEM, "drover-issuer-keys")) as unknown as {
        data?: Record<string, string>;
      };
      return data?.["keys.pem"];
    },
    { withinMs: 60_000 },
  );
  await run(
    [
      "write",
      "auth/jwt/config",
      "jwt_supported_algs=EdDSA",
      "bound_issuer=drover-issuer",
      "jwt_validation_pubkeys=-",
    ],
    keys,
  );
  const methods = JSON.parse(await run(["auth", "list", "-format=json"])) as Record<
    string,
    { accessor: string }
  >;
  const alias = `identity.entity.aliases.${methods["jwt/"]?.accessor}.metadata`;
  await run(
    ["policy", "write", "drover-session", "-"],
    `path "kv/data/t/{{${alias}.ten}}/v/{{${alias}.vlt}}/*" { capabilities = ["read"] }`,
  );
  const role = {
    role_type: "jwt",
    bound_audiences: ["vault"],
    user_claim: "vid",
    claim_mappings: { ten: "ten", vlt: "vlt" },
    token_policies: ["drover-session"],
    token_type: "batch",
    token_ttl: "5m",
  };
  await run(["write", "auth/jwt/role/drover-session", "-"], JSON.stringify(role));
  await run(["write", "kv/config", "cas_required=true"]);
  await setUpPools(run);
}

/** Pools read their model keys under their own service accounts. */
async function setUpPools(run: VaultPod["run"]): Promise<void> {
  await run(["auth", "enable", "kubernetes"]);
  await run(["write", "auth/kubernetes/config", "kubernetes_host=https://kubernetes.default.svc"]);
  await run(
    ["policy", "write", "drover-pools", "-"],
    `path "kv/data/pools/vaulted/*" { capabilities = ["read"] }`,
  );
  const role = {
    bound_service_account_names: ["drover-pool-vaulted"],
    bound_service_account_namespaces: [SYSTEM],
    audience: "vault",
    token_policies: ["drover-pools"],
    token_type: "batch",
    token_ttl: "5m",
  };
  await run(["write", "auth/kubernetes/role/drover-pool", "-"], JSON.stringify(role));
}

/** Stores a value as `token` of one entry of a CredentialVault; a new version each time. */
export async function putSecret(
  vault: VaultPod,
  place: { namespace: string; vault: string; path: string },
  value: string,
): Promise<void> {
  await put(vault, `t/${place.namespace}/v/${place.vault}/${place.path}`, "token", value);
}

/** Stores the model key of the pool `vaulted`. */
export async function putModelKey(vault: VaultPod, value: string): Promise<void> {
  await put(vault, "pools/vaulted/model", "api-key", value);
}

async function put({ run }: VaultPod, path: string, key: string, value: string): Promise<void> {
  const about = ["kv", "metadata", "get", "-format=json", "-mount=kv", path];
  const known = await run(about).catch(() => undefined);
  const version =
    known === undefined
      ? 0
      : (JSON.parse(known) as { data: { current_version: number } }).data.current_version;
  await run(["kv", "put", "-mount=kv", `-cas=${version}`, path, `${key}=-`], value);
}
