import { AppError } from "../../runtime/errors.ts";
import type { Credential, CredentialRequest, CredentialSource } from "../credential-source.ts";
import { credentialValue, describeEntry, describePlace, secretRefOf } from "../credential-value.ts";

/** The one call this source makes: it can neither list nor watch. */
export interface SecretReader {
  /** Null when there is no such Secret. Throws CREDENTIAL_UNAVAILABLE when it cannot be read. */
  getSecret(
    namespace: string,
    name: string,
    signal?: AbortSignal,
  ): Promise<{ resourceVersion: string; data: Record<string, string> } | null>;
}

/**
 * Credentials in Secrets of the session's own namespace, read with `get` by name. The namespace
 * comes from the session and never from the entry, so a vault cannot point at another tenant's.
 */
export class KubernetesSecretSource implements CredentialSource {
  readonly #secrets: SecretReader;

  constructor({ secrets }: { secrets: SecretReader }) {
    this.#secrets = secrets;
  }

  async read(request: CredentialRequest, signal?: AbortSignal): Promise<Credential> {
    const { name, key } = secretRefOf(request);
    const secret = await this.#secrets.getSecret(request.tenant, name, signal);
    const encoded =
      secret !== null && Object.hasOwn(secret.data, key) ? secret.data[key] : undefined;
    if (secret === null || encoded === undefined) {
      throw new AppError(
        "CREDENTIAL_NOT_FOUND",
        `${describeEntry(request)} refers to ${describePlace(request)}, which does not exist`,
      );
    }
    const text = Buffer.from(encoded, "base64").toString("utf8");
    return { value: credentialValue(request, text), version: secret.resourceVersion };
  }
}
