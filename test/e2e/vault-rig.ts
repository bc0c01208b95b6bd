import { apply, createNamespace, deleteNamespace, get, kubectl, SYSTEM } from "./cluster.ts";
import { ensureInstalled, NOTES, template, VAULT } from "./installation.ts";
import { startNotesServer } from "./notes.ts";
import { startVault, type VaultPod } from "./vault-pod.ts";
import { setUpVault } from "./vault-setup.ts";

export interface VaultRig {
  namespace: string;
  vault: VaultPod;
  notesUrl: string;
  close(): Promise<void>;
}

/** The chart, a vault that trusts its issuer, and an MCP server that takes any of `tokens`. */
export async function vaultRig(tokens: readonly string[]): Promise<VaultRig> {
  const { namespace } = VAULT;
  await ensureInstalled();
  await createNamespace(namespace);
  await apply(namespace, template);
  const [vault] = await Promise.all([
    startVault(await vaultTls()),
    startNotesServer(namespace, tokens),
  ]);
  await setUpVault(vault);
  return {
    namespace,
    vault,
    notesUrl: `http://notes.${namespace}.svc.cluster.local:${NOTES.port}/mcp`,
    close: async () => {
      await deleteNamespace(namespace);
      await kubectl([
        "delete",
        "clusterrolebinding",
        "e2e-vault-reviews-tokens",
        "--ignore-not-found",
      ]);
    },
  };
}

/** Made before the chart was installed, which trusts it. */
async function vaultTls(): Promise<Record<string, string>> {
  const { data } = (await get("secret", SYSTEM, VAULT.tlsSecret)) as unknown as {
    data: Record<string, string>;
  };
  return Object.fromEntries(
    Object.entries(data).map(([key, value]) => [key, Buffer.from(value, "base64").toString()]),
  );
}
