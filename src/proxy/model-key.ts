import { open } from "node:fs/promises";
import type { Credential } from "../credentials/credential-source.ts";
import type { Clock } from "../runtime/clock.ts";
import { AppError, describeError } from "../runtime/errors.ts";
import { Secret } from "../runtime/secret.ts";
import { HeldCredential } from "./held-credential.ts";
import { KnownValues } from "./known-values.ts";
import type { KnownSecret } from "./redaction.ts";

/** Reads the pool's model key from where it is kept: a file or a vault. */
export interface PoolKeyReader {
  /** Rejects as `CredentialSource.read` does. */
  read(signal?: AbortSignal): Promise<Credential>;
}

/** A key for the model endpoint, and all that must not come back from there. */
export interface ModelCredential {
  id: string;
  version: string;
  value: Secret;
  /** To be asked anew for each piece of an answer. */
  known: () => readonly KnownSecret[];
}

const POOL_KEY_ID = "model-key";

/**
 * The pool's model key, for sessions without one of their own. Without a reader requests carry no
 * key; a key that cannot be read fails them, so that nothing is ever sent without the key it was
 * meant to have.
 */
export class PoolModelKey {
  readonly #reader: PoolKeyReader | undefined;
  readonly #values = new KnownValues((value) => [{ id: POOL_KEY_ID, value }]);
  readonly #held: HeldCredential;

  constructor({ reader, clock }: { reader: PoolKeyReader | undefined; clock: Clock }) {
    this.#reader = reader;
    this.#held = new HeldCredential({ clock, values: this.#values });
  }

  /** Throws CREDENTIAL_UNAVAILABLE that says why. */
  async get(): Promise<ModelCredential | undefined> {
    const reader = this.#reader;
    if (reader === undefined) return undefined;
    try {
      const { value, version } = await this.#held.get(() => reader.read());
      return { id: POOL_KEY_ID, version, value, known: () => this.#values.known };
    } catch (cause) {
      throw new AppError(
        "CREDENTIAL_UNAVAILABLE",
        `the model key of the pool cannot be read: ${describeError(cause)}`,
        { cause, retryable: cause instanceof AppError && cause.retryable },
      );
    }
  }
}

/** The key in a file that only this container mounts. */
export class FileKeyReader implements PoolKeyReader {
  readonly #path: string;

  constructor({ path }: { path: string }) {
    this.#path = path;
  }

  async read(): Promise<Credential> {
    const { text, changed } = await this.#load();
    if (/^[\x21-\x7e]{8,}$/.test(text)) {
      return { value: new Secret(text), version: changed.toISOString() };
    }
    throw new AppError(
      "CREDENTIAL_UNAVAILABLE",
      "its file holds no key of at least 8 visible characters",
    );
  }

  async #load(): Promise<{ text: string; changed: Date }> {
    try {
      const file = await open(this.#path, "r");
      try {
        const { mtime } = await file.stat();
        return { text: (await file.readFile("utf8")).trim(), changed: mtime };
      } finally {
        await file.close();
      }
    } catch {
      // Not the cause: it names the path.
      throw new AppError("CREDENTIAL_UNAVAILABLE", "its file is missing");
    }
  }
}
