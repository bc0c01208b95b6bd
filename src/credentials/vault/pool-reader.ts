import { readFile } from "node:fs/promises";
import type { Clock } from "../../runtime/clock.ts";
import { AppError } from "../../runtime/errors.ts";
import { Secret } from "../../runtime/secret.ts";
import type { Credential } from "../credential-source.ts";
import { usableValue } from "../credential-value.ts";
import type { KvSecret, VaultClient, VaultLogin } from "./client.ts";
import { KeptLogins } from "./kept-logins.ts";
import type { VaultReader } from "./vault-source.ts";

export interface PoolReaderDeps {
  client: Pick<VaultClient, "login" | "readKv">;
  /** Where the vault's Kubernetes auth method is mounted, and its role for pods of Drover. */
  mount: string;
  role: string;
  /** Projected service account token for the vault; read at each login: the kubelet renews it. */
  tokenFile: string;
  clock: Clock;
}

/**
 * Reads as this pod: for the pool's own model key, and, where an install declares it, for sessions.
 * What it may read is what the vault's role of the pod's service account may.
 */
export class PoolReader implements VaultReader {
  readonly #deps: PoolReaderDeps;
  readonly #logins: KeptLogins;

  constructor(deps: PoolReaderDeps) {
    this.#deps = deps;
    this.#logins = new KeptLogins({ clock: deps.clock });
  }

  async read(path: string): Promise<KvSecret | null> {
    const { client } = this.#deps;
    const login = async () => await this.#login();
    return await this.#logins.with("pod", login, async (token) => await client.readKv(token, path));
  }

  async #login(): Promise<VaultLogin> {
    const { client, mount, role } = this.#deps;
    return await client.login(mount, role, await this.#podToken());
  }

  async #podToken(): Promise<Secret> {
    try {
      return new Secret((await readFile(this.#deps.tokenFile, "utf8")).trim());
    } catch {
      // Not the cause: it names the path.
      throw new AppError(
        "CREDENTIAL_UNAVAILABLE",
        "the pod has no service account token for the vault; its pool must be given one",
      );
    }
  }
}

/** The model key of a pool: one value, which the vault lets the pool's pods read. */
export class PoolKeyReader {
  readonly #reader: PoolReader;
  readonly #path: string;
  readonly #key: string;

  constructor(options: { reader: PoolReader; path: string; key: string }) {
    this.#reader = options.reader;
    this.#path = options.path;
    this.#key = options.key;
  }

  /** Throws CREDENTIAL_NOT_FOUND or CREDENTIAL_UNAVAILABLE, as a CredentialSource does. */
  async read(): Promise<Credential> {
    const place = `key "${this.#key}" at "${this.#path}" in the vault`;
    const secret = await this.#reader.read(this.#path);
    if (secret === null || !Object.hasOwn(secret.data, this.#key)) {
      throw new AppError("CREDENTIAL_NOT_FOUND", `${place} does not exist`);
    }
    const value = usableValue(`the value of ${place}`, secret.data[this.#key]);
    return { value, version: String(secret.version) };
  }
}
