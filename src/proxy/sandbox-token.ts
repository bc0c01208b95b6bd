import type { SessionIdentity } from "../credentials/credential-source.ts";
import type { BindingReader, LeaseReader } from "../protocol/session-ports.ts";
import { bindingProblem } from "../protocol/token-holder.ts";
import { AUDIENCES, type SandboxClaims, sandboxClaims, verifyToken } from "../protocol/tokens.ts";
import { withDeadline } from "../runtime/abort.ts";
import type { Clock } from "../runtime/clock.ts";
import { AppError } from "../runtime/errors.ts";
import { Secret } from "../runtime/secret.ts";
import { TIMEOUTS } from "./limits.ts";
import { bearerToken, keyId, type PublicKeys } from "./token.ts";

/** Which sandbox asks, for which session, and the token by which that session's vaults are opened. */
export interface SandboxCaller {
  claims: SandboxClaims;
  session: SessionIdentity;
}

export interface SandboxTokenDeps {
  keys: Pick<PublicKeys, "withKey">;
  bindings: BindingReader;
  leases: LeaseReader;
  clock: Clock;
}

/**
 * Says for which session a sandbox asks (docs/design/security.md#tokens). A sandbox token lives as
 * long as its binding, so the binding is read for each request, with whether the session still
 * lives; and a token that was carried out of its sandbox is of no use elsewhere.
 */
export class SandboxTokenCheck {
  readonly #deps: SandboxTokenDeps;

  constructor(deps: SandboxTokenDeps) {
    this.#deps = deps;
  }

  /**
   * `remoteAddress` is the connection's own, never a header's. Throws UNAUTHENTICATED for a token
   * that is not one, SESSION_CLOSED or SESSION_NOT_FOUND for one of a session that is over, FORBIDDEN for one that does not hold or comes from elsewhere, UNAVAILABLE or
   * TIMEOUT while keys or binding cannot be read.
   */
  async verify(
    authorization: string | undefined,
    remoteAddress: string | undefined,
  ): Promise<SandboxCaller> {
    const { keys, clock } = this.#deps;
    const token = bearerToken(authorization, "sandbox");
    const jwks = await keys.withKey(keyId(token));
    const claims = await verifyToken(jwks, AUDIENCES.sandbox, sandboxClaims, token, clock.now());
    await this.confirm(claims);
    if (plainAddress(remoteAddress ?? "") !== plainAddress(claims.ip)) {
      throw new AppError(
        "FORBIDDEN",
        `the sandbox token is of sandbox "${claims.sbx}" and is not taken from another address`,
      );
    }
    return { claims, session: { id: claims.sub, token: new Secret(token) } };
  }

  /**
   * Whether the token's binding still stands and its session lives: read now. Throws SESSION_CLOSED,
   * SESSION_NOT_FOUND or FORBIDDEN when not, UNAVAILABLE or TIMEOUT while it cannot be read.
   */
  async confirm(claims: SandboxClaims): Promise<void> {
    const { bindings, leases, clock } = this.#deps;
    const [binding, lease] = await withDeadline(
      clock,
      TIMEOUTS.storeMs,
      "reading the binding",
      async () =>
        await Promise.all([
          bindings.readBinding(claims.sbx),
          leases.readLease(claims.ten, claims.sub),
        ]),
    );
    const problem = bindingProblem(claims, binding, lease);
    if (problem !== undefined) throw problem;
  }
}

/** A server that listens on IPv6 sees IPv4 callers as `::ffff:10.0.0.1`. */
function plainAddress(address: string): string {
  return address.toLowerCase().replace(/^::ffff:(?=\d+\.)/, "");
}
