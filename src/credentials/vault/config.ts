import { z } from "zod";
import { authoritiesField } from "../../runtime/config.ts";
import { vaultAccessSettings } from "../../runtime/vault-settings.ts";

/** What a proxy needs beyond that, in sidecars and at the edge. */
export const vaultSettings = {
  ...vaultAccessSettings,
  vaultCa: authoritiesField(
    "DROVER_VAULT_CA",
    "Authorities of its certificate, in PEM; the public ones when absent.",
  ).optional(),
  vaultTokenFile: z.string().min(1).default("/var/run/secrets/drover/vault/token").meta({
    env: "DROVER_VAULT_TOKEN_FILE",
    description: "Projected service account token with audience vault.",
  }),
};
const vaultConfig = z.object(vaultSettings);
export type VaultSettings = Readonly<z.output<typeof vaultConfig>>;
