import type { Clock } from "../../runtime/clock.ts";
import { AppError } from "../../runtime/errors.ts";
import { IdleMap } from "../../runtime/idle-map.ts";
import type { Secret } from "../../runtime/secret.ts";
import type { VaultLogin } from "./client.ts";

/** More (session, vault) pairs than a pod serves at one time. */
const MAX_KEPT = 4096;
/** A token that was not used for so long leaves the memory. */
const IDLE_MS = 60_000;

interface Kept {
  login: Promise<VaultLogin>;
  /** Monotonic ms. */
  freshUntil: number;
}

/**
 * The vault's own tokens, each kept for two thirds of its life, so that one login serves many reads.
 * A token that is refused before that (revoked, or its vault was restored from a backup) is replaced
 * once; when the new one is refused as well, so is the request.
 */
export class KeptLogins {
  readonly #clock: Clock;
  readonly #kept: IdleMap<Kept>;

  constructor({ clock }: { clock: Clock }) {
    this.#clock = clock;
    this.#kept = new IdleMap({ max: MAX_KEPT, idleMs: IDLE_MS, clock });
  }

  /** Rejects with what `login` or `use` rejects with. */
  async with<T>(
    key: string,
    login: () => Promise<VaultLogin>,
    use: (token: Secret) => Promise<T>,
  ): Promise<T> {
    const old = this.#kept.get(key);
    if (old !== undefined && this.#clock.monotonic() < old.freshUntil) {
      const { token } = await old.login;
      try {
        return await use(token);
      } catch (error) {
        if (!isRefusal(error)) throw error;
        // Unless a call beside this one has replaced it already.
        if (this.#kept.get(key) === old) this.#kept.delete(key);
      }
    }
    const { token } = await this.#current(key, login);
    return await use(token);
  }

  async #current(key: string, login: () => Promise<VaultLogin>): Promise<VaultLogin> {
    const kept = this.#kept.get(key);
    if (kept !== undefined && this.#clock.monotonic() < kept.freshUntil) return await kept.login;
    const askedAt = this.#clock.monotonic();
    const entry: Kept = { login: login(), freshUntil: Number.POSITIVE_INFINITY };
    this.#kept.set(key, entry);
    try {
      const given = await entry.login;
      entry.freshUntil = askedAt + (given.leaseSeconds * 1000 * 2) / 3;
      return given;
    } catch (error) {
      if (this.#kept.get(key) === entry) this.#kept.delete(key);
      throw error;
    }
  }
}

function isRefusal(error: unknown): boolean {
  return error instanceof AppError && error.details["status"] === 403;
}
