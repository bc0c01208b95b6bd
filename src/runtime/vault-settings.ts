import { z } from "zod";

const mount = z
  .string()
  .regex(/^[A-Za-z0-9_-]+(\/[A-Za-z0-9_-]+)*$/, "expected the path of a mount, such as kv");
const role = z.string().regex(/^[\w.-]{1,128}$/, "expected the name of a role");

/** How the vault of the install is reached: the same settings in operator, sidecar and edge. */
export const vaultAccessSettings = {
  vaultAddress: z
    .string()
    .regex(/^https:\/\/[^\s?#@]+$/, "expected an https URL without query or user")
    .optional()
    .meta({
      env: "DROVER_VAULT_ADDRESS",
      description: "Vault or OpenBao that proxies read credentials from; none when absent.",
    }),
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
    description: "Where its JWT auth method, for sessions, is mounted below auth/.",
  }),
  vaultSessionRole: role.default("drover-session").meta({
    env: "DROVER_VAULT_SESSION_ROLE",
    description: "Role of sessions in it.",
  }),
  vaultKubernetesMount: mount.default("kubernetes").meta({
    env: "DROVER_VAULT_KUBERNETES_MOUNT",
    description: "Where its Kubernetes auth method, for pods, is mounted below auth/.",
  }),
  vaultPoolRole: role.default("drover-pool").meta({
    env: "DROVER_VAULT_POOL_ROLE",
    description: "Role of pods in it.",
  }),
  vaultSessionIdentity: z.enum(["session", "pod"]).default("session").meta({
    env: "DROVER_VAULT_SESSION_IDENTITY",
    description:
      "As whom a session's credentials are read: as the session, or (a fallback) as the proxy's pod.",
  }),
};
