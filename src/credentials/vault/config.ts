import { z } from "zod";
import { authoritiesField } from "../../runtime/config.ts";

const mount = z
  .string()
  .regex(/^[A-Za-z0-9_-]+(\/[A-Za-z0-9_-]+)*$/, "expected the path of a mount, such as kv");
const role = z.string().regex(/^[\w.-]{1,128}$/, "expected the name of a role");

/** How a proxy reaches the vault of the install: the same settings in sidecars and at the edge. */
export const vaultSettings = {
  vaultAddress: z
    .string()
    .regex(/^https:\/\/[^\s?#@]+$/, "expected an https URL without query or user")
    .optional()
    .meta({
      env: "DROVER_VAULT_ADDRESS",
      description: "Vault or OpenBao that credentials are read from; none when absent.",
    }),
  vaultCa: authoritiesField(
    "DROVER_VAULT_CA",
    "Authorities of its certificate, in PEM; the public ones when absent.",
  ).optional(),
  vaultNamespace: mount.optional().meta({
    env: "DROVER_VAULT_NAMESPACE",
    description: "Namespace inside the vault, where it has them.",
  }),
  vaultKvMount: mount.default("kv").meta({
    env: "DROVER_VAULT_KV_MOUNT",
    description: "Where its KV v2 engine is mounted.",
  }),
  vaultJwtMount: mount.default("jwt").meta({
    env: "DROVER_VAULT_JWT_MOUNT",
    description: "Where its JWT auth method is mounted, below auth/.",
  }),
  vaultSessionRole: role.default("drover-session").meta({
    env: "DROVER_VAULT_SESSION_ROLE",
    description: "Role of sessions in it.",
  }),
  vaultKubernetesMount: mount.default("kubernetes").meta({
    env: "DROVER_VAULT_KUBERNETES_MOUNT",
    description: "Where its Kubernetes auth method is mounted, below auth/.",
  }),
  vaultPoolRole: role.default("drover-pool").meta({
    env: "DROVER_VAULT_POOL_ROLE",
    description: "Role of this pod in it.",
  }),
  vaultTokenFile: z.string().min(1).default("/var/run/secrets/drover/vault/token").meta({
    env: "DROVER_VAULT_TOKEN_FILE",
    description: "Projected service account token with audience vault.",
  }),
  vaultSessionIdentity: z.enum(["session", "pod"]).default("session").meta({
    env: "DROVER_VAULT_SESSION_IDENTITY",
    description:
      "As whom a session's credentials are read: as the session, or (a fallback) as this pod.",
  }),
};
const vaultConfig = z.object(vaultSettings);
export type VaultSettings = Readonly<z.output<typeof vaultConfig>>;
