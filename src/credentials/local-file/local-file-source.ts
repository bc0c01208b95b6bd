import { createHash } from "node:crypto";
import { type FileHandle, open } from "node:fs/promises";
import { parse } from "yaml";
import { z } from "zod";
import { AppError, codeOf } from "../../runtime/errors.ts";
import type { Credential, CredentialRequest, CredentialSource } from "../credential-source.ts";
import { credentialValue, describeEntry, describePlace, secretRefOf } from "../credential-value.ts";

/** namespace → secret name → key → value: the same words a manifest uses for Secrets. */
const secretsFile = z.record(
  z.string(),
  z.record(z.string(), z.record(z.string(), z.union([z.string(), z.number()]))),
);

const MAX_FILE_BYTES = 1024 * 1024;

/**
 * Credentials of local mode: one YAML or JSON file that its owner alone may read (mode 0600).
 * Read at each call, so an edit takes effect at once.
 */
export class LocalFileSource implements CredentialSource {
  readonly #path: string;

  constructor({ path }: { path: string }) {
    this.#path = path;
  }

  async read(request: CredentialRequest): Promise<Credential> {
    const secrets = await this.#load(request);
    const { name, key } = secretRefOf(request);
    const value = own(own(own(secrets, request.tenant), name), key);
    if (value === undefined) {
      throw new AppError(
        "CREDENTIAL_NOT_FOUND",
        `${describeEntry(request)} refers to ${describePlace(request)}, ` +
          "which is not in the local credentials file",
      );
    }
    const text = String(value);
    return {
      value: credentialValue(request, text),
      // A keyed hash would need a key to keep; the name of the place makes equal values look different.
      version: createHash("sha256")
        .update(`${describePlace(request)}\0${text}`)
        .digest("hex")
        .slice(0, 16),
    };
  }

  async #load(request: CredentialRequest): Promise<z.output<typeof secretsFile>> {
    const file = await this.#open(request);
    try {
      const { mode, size } = await file.stat();
      if ((mode & 0o077) !== 0) {
        throw unusable(request, "others than its owner may read it; run chmod 600 on it");
      }
      if (size > MAX_FILE_BYTES) throw unusable(request, "it is larger than 1 MiB");
      const parsed = secretsFile.safeParse(parseYaml(await file.readFile("utf8")));
      if (!parsed.success) {
        throw unusable(request, "expected namespace → secret name → key → value");
      }
      return parsed.data;
    } finally {
      await file.close();
    }
  }

  async #open(request: CredentialRequest): Promise<FileHandle> {
    try {
      return await open(this.#path, "r");
    } catch (error) {
      if (codeOf(error) === "ENOENT") {
        throw new AppError(
          "CREDENTIAL_NOT_FOUND",
          `${describeEntry(request)} refers to ${describePlace(request)}, ` +
            "but there is no local credentials file",
        );
      }
      throw unusable(request, `it cannot be opened (${codeOf(error) ?? "unknown error"})`);
    }
  }
}

function unusable(request: CredentialRequest, reason: string): AppError {
  return new AppError(
    "CREDENTIAL_UNAVAILABLE",
    `${describeEntry(request)} cannot be read from the local credentials file: ${reason}`,
  );
}

/** The parser's own message may quote the file, so it is dropped. */
function parseYaml(text: string): unknown {
  try {
    return parse(text);
  } catch {
    return undefined;
  }
}

function own<T>(record: Readonly<Record<string, T>> | undefined, name: string): T | undefined {
  return record !== undefined && Object.hasOwn(record, name) ? record[name] : undefined;
}
