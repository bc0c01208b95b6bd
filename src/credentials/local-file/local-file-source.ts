import { createHmac } from "node:crypto";
import { AppError, hasCode } from "../../runtime/errors.ts";
import type { Credential, CredentialRequest, CredentialSource } from "../credential-source.ts";
import { credentialValue, describeEntry, describePlace, secretRefOf } from "../credential-value.ts";
import type { EncryptedFile, LocalContent } from "./encrypted-file.ts";

/** Credentials of local mode. The file is read at each call, so that a change takes effect at once. */
export class LocalFileSource implements CredentialSource {
  readonly #file: Pick<EncryptedFile, "read">;

  constructor({ file }: { file: Pick<EncryptedFile, "read"> }) {
    this.#file = file;
  }

  async read(request: CredentialRequest): Promise<Credential> {
    const { name, key } = secretRefOf(request);
    const content = await this.#content(request);
    const text = own(own(own(content?.secrets, request.tenant), name), key);
    if (content === null || text === undefined) throw missing(request, name, key);
    const fingerprint = createHmac("sha256", content.key).update(
      JSON.stringify([request.tenant, name, key, text]),
    );
    return {
      value: credentialValue(request, text),
      version: fingerprint.digest("hex").slice(0, 16),
    };
  }

  async #content(request: CredentialRequest): Promise<LocalContent | null> {
    try {
      return await this.#file.read();
    } catch (error) {
      if (!hasCode(error, "CREDENTIAL_UNAVAILABLE")) throw error;
      throw new AppError(error.code, `${describeEntry(request)} cannot be read: ${error.message}`);
    }
  }
}

function missing(request: CredentialRequest, name: string, key: string): AppError {
  return new AppError(
    "CREDENTIAL_NOT_FOUND",
    `${describeEntry(request)} refers to ${describePlace(request)}, which is not in the local ` +
      `credentials file; add it: drover credentials set ${request.tenant} ${name} ${key}`,
  );
}

function own<T>(record: Readonly<Record<string, T>> | undefined, name: string): T | undefined {
  return record !== undefined && Object.hasOwn(record, name) ? record[name] : undefined;
}
