import { hash as digest } from "node:crypto";
import { decodeProtectedHeader } from "jose";
import type { SessionIdentity } from "../credentials/credential-source.ts";
import type { LeaseReader, LeaseState } from "../protocol/session-ports.ts";
import { leaseProblem } from "../protocol/token-holder.ts";
import {
  AUDIENCES,
  type Jwks,
  type SessionClaims,
  sessionClaims,
  verifyToken,
} from "../protocol/tokens.ts";
import { withDeadline } from "../runtime/abort.ts";
import { BoundedMap } from "../runtime/bounded-map.ts";
import type { Clock } from "../runtime/clock.ts";
import { AppError } from "../runtime/errors.ts";
import type { IssuerPort } from "./issuer-client.ts";
import { TIMEOUTS } from "./limits.ts";

/** How old a lease may be that a read or a model request is checked against. */
const RECENT_MS = 2000;
/** While the store does not answer, reads go on against what was known this long ago at most. */
const BLIP_MS = 10_000;
/** An unknown key id makes us ask the issuer again, but not for every forged token. */
const KEY_REFRESH_MS = 10_000;
const MAX_CACHED = 4096;

/** The issuer's public keys, asked for when a token names one we have not seen. */
export class PublicKeys {
  readonly #issuer: Pick<IssuerPort, "keys">;
  readonly #clock: Clock;
  #jwks: Jwks = { keys: [] };
  #askedAt = Number.NEGATIVE_INFINITY;
  #asking: Promise<void> | undefined;

  constructor({ issuer, clock }: { issuer: Pick<IssuerPort, "keys">; clock: Clock }) {
    this.#issuer = issuer;
    this.#clock = clock;
  }

  get loaded(): boolean {
    return this.#jwks.keys.length > 0;
  }

  /** The key set that holds `kid` if the issuer has it. Rejects with UNAVAILABLE when none is known. */
  async withKey(kid: string): Promise<Jwks> {
    if (this.#has(kid)) return this.#jwks;
    if (!this.loaded || this.#clock.monotonic() - this.#askedAt > KEY_REFRESH_MS) {
      await this.load();
    }
    return this.#jwks;
  }

  async load(): Promise<void> {
    this.#asking ??= this.#ask();
    try {
      await this.#asking;
    } finally {
      this.#asking = undefined;
    }
  }

  #has(kid: string): boolean {
    return this.#jwks.keys.some((key) => key.kid === kid);
  }

  async #ask(): Promise<void> {
    this.#askedAt = this.#clock.monotonic();
    this.#jwks = await this.#issuer.keys();
  }
}

/** Who asks: a session, and the token it showed, by which its vaults are opened. */
export interface Caller {
  claims: SessionClaims;
  session: SessionIdentity;
}

export interface SessionTokenDeps {
  keys: Pick<PublicKeys, "withKey">;
  leases: LeaseReader;
  /** UID of this harness pod. */
  podUid: string;
  clock: Clock;
}

/**
 * Says for which session a request is made (docs/design/security.md#tokens). `verify` reads nothing
 * but the token;
 * `confirm` holds it against the session's current lease, so a worker that lost the session is
 * refused although its token has not run out.
 */
export class SessionTokenCheck {
  readonly #deps: SessionTokenDeps;
  readonly #verified = new BoundedMap<SessionClaims>(MAX_CACHED);
  readonly #leases = new BoundedMap<{ lease: LeaseState | null; readAt: number }>(MAX_CACHED);

  constructor(deps: SessionTokenDeps) {
    this.#deps = deps;
  }

  /** Signature, algorithm, issuer, audience, life, and that it was made for this pod. */
  async verify(authorization: string | undefined): Promise<SessionClaims> {
    const token = bearerToken(authorization, "session");
    const now = this.#deps.clock.now();
    const tokenHash = digest("sha256", token, "base64");
    const known = this.#verified.get(tokenHash);
    if (known !== undefined && known.exp * 1000 > now) return known;
    const jwks = await this.#deps.keys.withKey(keyId(token));
    const claims = await verifyToken(jwks, AUDIENCES.session, sessionClaims, token, now);
    if (claims.pod !== this.#deps.podUid) {
      throw new AppError("UNAUTHENTICATED", "the session token was issued to another pod");
    }
    this.#verified.set(tokenHash, claims);
    return claims;
  }

  /** `fresh` reads the lease now, for what has side effects; otherwise one of 2 s ago will do. */
  async confirm(claims: SessionClaims, fresh: boolean): Promise<void> {
    const key = `${claims.ten}/${claims.sub}`;
    const known = this.#leases.get(key);
    const age = this.#deps.clock.monotonic() - (known?.readAt ?? Number.NEGATIVE_INFINITY);
    // A cached lease can only let in: a worker that has just claimed must not be refused for its age.
    const mayDo = !fresh && known !== undefined && leaseProblem(claims, known.lease) === undefined;
    if (mayDo && age <= RECENT_MS) return;
    let lease: LeaseState | null;
    try {
      lease = await this.#readLease(claims);
    } catch (error) {
      if (mayDo && age <= BLIP_MS) return;
      throw error;
    }
    this.#leases.set(key, { lease, readAt: this.#deps.clock.monotonic() });
    const problem = leaseProblem(claims, lease);
    if (problem !== undefined) throw problem;
  }

  async #readLease({ ten, sub }: SessionClaims): Promise<LeaseState | null> {
    return await withDeadline(this.#deps.clock, TIMEOUTS.storeMs, "reading the lease", () =>
      this.#deps.leases.readLease(ten, sub),
    );
  }
}

/** Throws UNAUTHENTICATED when there is none. */
export function bearerToken(
  authorization: string | undefined,
  kind: "session" | "sandbox",
): string {
  const token = /^Bearer ([\w.-]{1,4096})$/.exec(authorization ?? "")?.[1];
  if (token !== undefined) return token;
  throw new AppError("UNAUTHENTICATED", `a ${kind} token is needed: Authorization: Bearer …`);
}

/** An unreadable header gives an unknown key id; verifyToken then says what is wrong. */
export function keyId(token: string): string {
  try {
    return decodeProtectedHeader(token).kid ?? "";
  } catch {
    return "";
  }
}
