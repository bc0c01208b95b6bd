import { randomBytes } from "node:crypto";
import { type FileHandle, mkdir, open, readFile, rename, rm } from "node:fs/promises";
import { dirname } from "node:path";
import { CompactEncrypt, compactDecrypt } from "jose";
import { z } from "zod";
import { AppError, codeOf } from "../../runtime/errors.ts";

/** namespace → secret name → key → value: the same words a manifest uses for Secrets. */
const secretsSchema = z.record(z.string(), z.record(z.string(), z.record(z.string(), z.string())));
export type LocalSecrets = z.output<typeof secretsSchema>;

const KEY_BYTES = 32;
const MAX_FILE_BYTES = 1024 * 1024;

export interface LocalContent {
  secrets: LocalSecrets;
  /** The key they are kept under, for fingerprints that say nothing to others. */
  key: Uint8Array;
}

/**
 * The credentials of local mode: one file, encrypted with AES-256-GCM (a compact JWE, RFC 7516) under
 * a random key in a file of its own that its owner alone may read. Keep the two apart in backups.
 * Every method throws CREDENTIAL_UNAVAILABLE, with the fix, for files it cannot use.
 */
export class EncryptedFile {
  readonly #path: string;
  readonly #keyPath: string;

  constructor({ path, keyPath }: { path: string; keyPath: string }) {
    this.#path = path;
    this.#keyPath = keyPath;
  }

  /** Null when there is no file yet. */
  async read(): Promise<LocalContent | null> {
    const text = await readIfThere(this.#path);
    if (text === undefined) return null;
    const key = await this.#readKey();
    if (key === undefined) throw unusable("its key is not there; put the key file back");
    try {
      const { plaintext } = await compactDecrypt(text.trim(), key, {
        keyManagementAlgorithms: ["dir"],
        contentEncryptionAlgorithms: ["A256GCM"],
      });
      return { secrets: secretsSchema.parse(JSON.parse(new TextDecoder().decode(plaintext))), key };
    } catch {
      throw unusable("it was changed, or is not of this key");
    }
  }

  /**
   * Writes what `change` makes of it; who reads meanwhile sees the old or the new. Makes file and key
   * when there are none. Two changes at the same time: the later one wins.
   */
  async change(change: (secrets: LocalSecrets) => LocalSecrets): Promise<void> {
    const old = await this.read();
    const key = old?.key ?? (await this.#readKey()) ?? (await this.#makeKey());
    const plain = new TextEncoder().encode(JSON.stringify(change(old?.secrets ?? {})));
    if (plain.length > MAX_FILE_BYTES / 2) throw unusable("it would become too large");
    const text = await new CompactEncrypt(plain)
      .setProtectedHeader({ alg: "dir", enc: "A256GCM" })
      .encrypt(key);
    await mkdir(dirname(this.#path), { recursive: true, mode: 0o700 });
    const next = `${this.#path}.${process.pid}.new`;
    try {
      await writeDurably(next, `${text}\n`);
      await rename(next, this.#path);
    } finally {
      await rm(next, { force: true });
    }
  }

  async #readKey(): Promise<Uint8Array | undefined> {
    let file: FileHandle;
    try {
      file = await open(this.#keyPath, "r");
    } catch (error) {
      if (codeOf(error) === "ENOENT") return undefined;
      throw unusable(`its key cannot be opened (${codeOf(error) ?? "unknown error"})`);
    }
    try {
      const { mode } = await file.stat();
      if ((mode & 0o077) !== 0) {
        throw unusable("others than its owner may read its key; run chmod 600 on the key file");
      }
      const key = Buffer.from((await file.readFile("utf8")).trim(), "base64url");
      if (key.length !== KEY_BYTES) throw unusable("its key file holds something else");
      return new Uint8Array(key);
    } finally {
      await file.close();
    }
  }

  async #makeKey(): Promise<Uint8Array> {
    const key = randomBytes(KEY_BYTES);
    await mkdir(dirname(this.#keyPath), { recursive: true, mode: 0o700 });
    await writeDurably(this.#keyPath, `${key.toString("base64url")}\n`);
    return new Uint8Array(key);
  }
}

/** A new file that only its owner may read, on disk when this resolves. */
async function writeDurably(path: string, text: string): Promise<void> {
  const file = await open(path, "wx", 0o600);
  try {
    await file.writeFile(text);
    await file.sync();
  } finally {
    await file.close();
  }
}

async function readIfThere(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, "utf8");
  } catch (error) {
    if (codeOf(error) === "ENOENT") return undefined;
    throw unusable(`it cannot be opened (${codeOf(error) ?? "unknown error"})`);
  }
}

function unusable(reason: string): AppError {
  return new AppError(
    "CREDENTIAL_UNAVAILABLE",
    `the local credentials file cannot be used: ${reason}`,
  );
}
