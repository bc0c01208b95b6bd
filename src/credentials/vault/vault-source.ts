import { AppError, hasCode } from "../../runtime/errors.ts";
import type { Credential, CredentialRequest, CredentialSource } from "../credential-source.ts";
import { credentialValue, describeEntry, describePlace } from "../credential-value.ts";
import type { KvSecret } from "./client.ts";

/** Reads a path of the KV store, as whoever it is. */
export interface VaultReader {
  /** Null when nothing is there. Throws CREDENTIAL_UNAVAILABLE without naming the entry. */
  read(path: string, request: CredentialRequest): Promise<KvSecret | null>;
}

/**
 * Credentials in a vault, below `t/<namespace>/v/<CredentialVault>/` of its KV v2 store. The folder
 * comes from the session and never from the entry; that the vault itself grants no other is up to
 * the reader. A read ends by the client's deadline, whatever the caller's signal says: others may
 * wait for the same answer.
 */
export class VaultSource implements CredentialSource {
  readonly #reader: VaultReader;
  /** Reads on their way, by session and path: one serves all keys of a secret. */
  readonly #running = new Map<string, Promise<KvSecret | null>>();

  constructor({ reader }: { reader: VaultReader }) {
    this.#reader = reader;
  }

  async read(request: CredentialRequest): Promise<Credential> {
    const { vaultRef } = request.entry;
    if (vaultRef === undefined) {
      const message = `${describeEntry(request)} names no place in a vault`;
      throw new AppError("CREDENTIAL_UNAVAILABLE", message);
    }
    const secret = await this.#secret(request, vaultRef.path);
    if (secret === null || !Object.hasOwn(secret.data, vaultRef.key)) {
      throw new AppError(
        "CREDENTIAL_NOT_FOUND",
        `${describeEntry(request)} refers to ${describePlace(request)}, which does not exist`,
      );
    }
    return {
      value: credentialValue(request, secret.data[vaultRef.key]),
      version: String(secret.version),
    };
  }

  async #secret(request: CredentialRequest, path: string): Promise<KvSecret | null> {
    const { tenant, vault, session } = request;
    const place = `t/${tenant}/v/${vault}/${path}`;
    const key = JSON.stringify([session.id, place]);
    const running = this.#running.get(key);
    try {
      if (running !== undefined) return await running;
      const reading = this.#reader.read(place, request).finally(() => this.#running.delete(key));
      this.#running.set(key, reading);
      return await reading;
    } catch (error) {
      throw aboutEntry(request, error);
    }
  }
}

function aboutEntry(request: CredentialRequest, error: unknown): unknown {
  if (!hasCode(error, "CREDENTIAL_UNAVAILABLE") && !hasCode(error, "INPUT_INVALID")) return error;
  const { message, cause, details, retryable } = error;
  return new AppError(
    "CREDENTIAL_UNAVAILABLE",
    `${describeEntry(request)} cannot be read: ${message}`,
    { cause, details, retryable },
  );
}
