import type { VaultAccess } from "../credentials/vault/vault-access.ts";
import { type ProxyConfig, proxyConfig } from "../proxy/config.ts";
import { FileKeyReader, type PoolKeyReader } from "../proxy/model-key.ts";
import { createProxyServer } from "../proxy/server.ts";
import { loadConfig } from "../runtime/config.ts";
import { AppError } from "../runtime/errors.ts";
import { runProcess } from "../runtime/process.ts";
import { openProxyParts } from "./proxy-parts.ts";

/** `drover proxy`: the sidecar of a harness pod; the only process there that holds credentials. */
export async function proxyMain(
  env: Readonly<Record<string, string | undefined>>,
  signal: AbortSignal,
): Promise<number> {
  const config = loadConfig(proxyConfig, env);
  const { deps, sessions, vault, serve } = openProxyParts(config, "proxy");
  const proxy = createProxyServer({
    ...deps,
    podUid: config.podUid,
    mcpCallMs: config.mcpCallMs,
    model: { baseUrl: config.modelBaseUrl, poolKey: poolKeyReader(config, vault) },
    toolPins: sessions,
  });
  const life = {
    listen: async () => await proxy.listen(config.port),
    close: async () => await proxy.close(),
  };
  await serve(proxy, life, signal);
  return 0;
}

function poolKeyReader(
  { modelApiKeyFile, modelApiKeyVaultPath, modelApiKeyVaultKey }: ProxyConfig,
  vault: VaultAccess | undefined,
): PoolKeyReader | undefined {
  if (modelApiKeyVaultPath === undefined) {
    return modelApiKeyFile === undefined ? undefined : new FileKeyReader({ path: modelApiKeyFile });
  }
  if (vault === undefined) {
    const message = "DROVER_MODEL_API_KEY_VAULT_PATH is set, and DROVER_VAULT_ADDRESS is not";
    throw new AppError("CONFIG_INVALID", message);
  }
  return vault.poolKey({ path: modelApiKeyVaultPath, key: modelApiKeyVaultKey });
}

if (import.meta.main) {
  await runProcess((signal) => proxyMain(process.env, signal));
}
