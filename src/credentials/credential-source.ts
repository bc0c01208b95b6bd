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
  /**
   * The session it is read for: a vault is asked under this session's identity
   * (docs/design/security.md#vault).
   */
  session: SessionIdentity;
}

/** Where a value is: one of the two, as in the manifest. */
export interface CredentialEntry {
  name: string;
  secretRef?: { name: string; key: string } | undefined;
  /** Path below the folder of the CredentialVault. */
  vaultRef?: { path: string; key: string } | undefined;
}

export interface SessionIdentity {
  id: string;
  /** The token by which the session asked: a session token in the sidecar, a sandbox token at the edge. */
  token: Secret;
}

export interface Credential {
  value: Secret;
  /** Changes whenever the value does; safe to log. */
  version: string;
}
