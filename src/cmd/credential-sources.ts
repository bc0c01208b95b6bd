import { readFileSync } from "node:fs";
import type { CredentialSource } from "../credentials/credential-source.ts";
import { KubernetesSecretSource } from "../credentials/kubernetes-secret/kubernetes-secret-source.ts";
import { SecretClient } from "../credentials/kubernetes-secret/secret-client.ts";
import { RoutedSource } from "../credentials/routed-source.ts";
import type { VaultSettings } from "../credentials/vault/config.ts";
import type { VaultTokenPort } from "../credentials/vault/session-reader.ts";
import { openVault, type VaultAccess } from "../credentials/vault/vault-access.ts";
import type { ProxyMetrics } from "../proxy/metrics.ts";
import { systemClock } from "../runtime/clock.ts";
import { AppError } from "../runtime/errors.ts";
import type { Logger } from "../runtime/logger.ts";

/** Where a process that adds credentials reads them: the same in sidecars and at the edge. */
export interface CredentialSettings extends VaultSettings {
  kubernetesHost: string;
  kubernetesPort: number;
  apiTokenFile: string;
  apiCaFile: string;
}

export interface CredentialSources {
  source: CredentialSource;
  /** Undefined when the install has none. */
  vault: VaultAccess | undefined;
  close(): Promise<void>;
}

export interface CredentialSourcesDeps {
  tokens: VaultTokenPort;
  logger: Logger;
  metrics: Pick<ProxyMetrics, "vaultPodIdentity">;
}

/** Throws CONFIG_INVALID for a missing authority of the Kubernetes API; asks nobody anything yet. */
export function openCredentialSources(
  settings: CredentialSettings,
  { tokens, logger, metrics }: CredentialSourcesDeps,
): CredentialSources {
  const secrets = new SecretClient({
    server: kubernetesUrl(settings),
    tokenFile: settings.apiTokenFile,
    ca: readCa(settings.apiCaFile),
  });
  const vault = openVault(settings, { tokens, clock: systemClock });
  const asPod = vault !== undefined && settings.vaultSessionIdentity === "pod";
  metrics.vaultPodIdentity.set(asPod ? 1 : 0);
  if (asPod) {
    logger.warn(
      "credentials of sessions are read from the vault as this pod: " +
        "the vault cannot tell one session's from another's",
    );
  }
  return {
    source: new RoutedSource({
      secrets: new KubernetesSecretSource({ secrets }),
      vault: vault?.source,
    }),
    vault,
    close: async () => {
      await Promise.all([secrets.close(), vault?.close()]);
    },
  };
}

function kubernetesUrl({ kubernetesHost: host, kubernetesPort: port }: CredentialSettings): string {
  return `https://${host.includes(":") ? `[${host}]` : host}:${port}`;
}

function readCa(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch (cause) {
    throw new AppError("CONFIG_INVALID", `DROVER_API_CA_FILE: cannot read "${path}"`, { cause });
  }
}
