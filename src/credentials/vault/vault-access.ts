import type { Clock } from "../../runtime/clock.ts";
import type { CredentialSource } from "../credential-source.ts";
import { VaultClient } from "./client.ts";
import type { VaultSettings } from "./config.ts";
import { PoolKeyReader, PoolReader } from "./pool-reader.ts";
import { SessionReader, type VaultTokenPort } from "./session-reader.ts";
import { VaultSource } from "./vault-source.ts";

/** What a proxy does with the vault of its install. */
export interface VaultAccess {
  /** For entries with a vaultRef. */
  source: CredentialSource;
  /** One value that this pod reads as itself. */
  poolKey(place: { path: string; key: string }): PoolKeyReader;
  close(): Promise<void>;
}

/** Undefined when the install has no vault. Nothing is asked of it before the first read. */
export function openVault(
  settings: VaultSettings,
  { tokens, clock }: { tokens: VaultTokenPort; clock: Clock },
): VaultAccess | undefined {
  const { vaultAddress: address } = settings;
  if (address === undefined) return undefined;
  const client = new VaultClient({
    address,
    ca: settings.vaultCa,
    namespace: settings.vaultNamespace,
    kvMount: settings.vaultKvMount,
    clock,
  });
  const pod = new PoolReader({
    client,
    mount: settings.vaultKubernetesMount,
    role: settings.vaultPoolRole,
    tokenFile: settings.vaultTokenFile,
    clock,
  });
  const session = new SessionReader({
    client,
    tokens,
    mount: settings.vaultJwtMount,
    role: settings.vaultSessionRole,
    clock,
  });
  const reader = settings.vaultSessionIdentity === "pod" ? pod : session;
  return {
    source: new VaultSource({ reader }),
    poolKey: (place) => new PoolKeyReader({ reader: pod, ...place }),
    close: async () => await client.close(),
  };
}
