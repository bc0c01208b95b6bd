import type { Credential, CredentialRequest, CredentialSource } from "./credential-source.ts";

/** Sends each entry to where its value is: a Secret of Kubernetes, or the vault of the install. */
export class RoutedSource implements CredentialSource {
  readonly #secrets: CredentialSource;
  readonly #vault: CredentialSource | undefined;

  /** Without a `vault`, entries with a vaultRef are refused by `secrets` with the words for it. */
  constructor(sources: { secrets: CredentialSource; vault: CredentialSource | undefined }) {
    this.#secrets = sources.secrets;
    this.#vault = sources.vault;
  }

  async read(request: CredentialRequest, signal?: AbortSignal): Promise<Credential> {
    const isInVault = request.entry.vaultRef !== undefined;
    const source = isInVault && this.#vault !== undefined ? this.#vault : this.#secrets;
    return await source.read(request, signal);
  }
}
