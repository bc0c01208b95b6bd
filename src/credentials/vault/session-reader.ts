import type { VaultTokenRequest, VaultTokenResponse } from "../../protocol/proxy-api.ts";
import type { Clock } from "../../runtime/clock.ts";
import { AppError, describeError } from "../../runtime/errors.ts";
import { Secret } from "../../runtime/secret.ts";
import type { CredentialRequest } from "../credential-source.ts";
import type { KvSecret, VaultClient, VaultLogin } from "./client.ts";
import { KeptLogins } from "./kept-logins.ts";
import type { VaultReader } from "./vault-source.ts";

/** Where the token for one login at the vault comes from: the issuer. */
export interface VaultTokenPort {
  /** Rejects with the issuer's own code, or UNAVAILABLE when it does not answer. */
  vaultToken(request: VaultTokenRequest): Promise<VaultTokenResponse>;
}

/** Codes by which the issuer says that it is not itself at the moment. */
const OUTAGES = new Set(["UNAVAILABLE", "TIMEOUT", "REDIS_UNREACHABLE"]);

export interface SessionReaderDeps {
  client: Pick<VaultClient, "login" | "readKv">;
  tokens: VaultTokenPort;
  /** Where the vault's JWT auth method is mounted, and its role for sessions. */
  mount: string;
  role: string;
  clock: Clock;
}

/**
 * Reads as the session that asks: one login for each (session, vault), with a token that the issuer
 * gives only against the session's own. The vault's policy grants the folder of that one vault, so
 * that nothing in this process can read more (docs/design/security.md#vault).
 */
export class SessionReader implements VaultReader {
  readonly #deps: SessionReaderDeps;
  readonly #logins: KeptLogins;

  constructor(deps: SessionReaderDeps) {
    this.#deps = deps;
    this.#logins = new KeptLogins({ clock: deps.clock });
  }

  async read(path: string, request: CredentialRequest): Promise<KvSecret | null> {
    const { client } = this.#deps;
    const { session, tenant, vault } = request;
    const key = JSON.stringify([session.id, tenant, vault]);
    const login = async () => await this.#login(request);
    return await this.#logins.with(key, login, async (token) => await client.readKv(token, path));
  }

  async #login({ session, vault }: CredentialRequest): Promise<VaultLogin> {
    const { client, mount, role } = this.#deps;
    const token = await this.#vaultToken({ token: session.token.reveal(), vault });
    return await client.login(mount, role, token);
  }

  async #vaultToken(request: VaultTokenRequest): Promise<Secret> {
    try {
      return new Secret((await this.#deps.tokens.vaultToken(request)).vaultToken);
    } catch (cause) {
      const isOutage = cause instanceof AppError && (cause.retryable || OUTAGES.has(cause.code));
      throw new AppError(
        "CREDENTIAL_UNAVAILABLE",
        `the issuer gave no token for the vault: ${describeError(cause)}`,
        { cause, retryable: isOutage },
      );
    }
  }
}
