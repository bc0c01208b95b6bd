import type { Secret } from "../runtime/secret.ts";

/**
 * Where credential values are read from. Only the proxy (and local mode, and `cmd/`) may use it;
 * a value stays inside the process that read it.
 */
export interface CredentialSource {
  /**
   * Reads the value now; nothing is cached here.
   *
   * Throws CREDENTIAL_NOT_FOUND when the place the entry names does not exist, and
   * CREDENTIAL_UNAVAILABLE when it cannot be read (unreachable, denied, sealed) or holds something
   * that cannot serve as a credential. `retryable` says whether time alone may help. No message
   * holds a value.
   */
  read(request: CredentialRequest, signal?: AbortSignal): Promise<Credential>;
}

export interface CredentialRequest {
  /** Namespace of the session and of its vaults. */
  tenant: string;
  /** Name of the CredentialVault. */
  vault: string;
  /** The entry, as frozen in the session's snapshot. */
  entry: CredentialEntry;
}

export interface CredentialEntry {
  name: string;
  secretRef: { name: string; key: string };
}

export interface Credential {
  value: Secret;
  /** Changes whenever the value does; safe to log. */
  version: string;
}
