import { AppError } from "../runtime/errors.ts";
import type { BindingReader, LeaseState } from "./session-ports.ts";
import { leaseTokenHash, type SandboxClaims, type SessionClaims } from "./tokens.ts";

/**
 * Whether what a token says still holds: its signature tells only that it once did (design:
 * security §3). Asked by the proxies before they serve and by the issuer before it signs.
 */

export type Binding = NonNullable<Awaited<ReturnType<BindingReader["readBinding"]>>>;

/**
 * Why the session token's lease is not the current one, or undefined when it is. The lease token has
 * to be equal, not only the epoch: a failover can give an epoch out twice.
 */
export function leaseProblem(
  claims: SessionClaims,
  lease: LeaseState | null,
): AppError | undefined {
  const session = `session "${claims.sub}"`;
  if (lease === null) return new AppError("SESSION_NOT_FOUND", `${session} does not exist`);
  if (lease.terminated) return new AppError("SESSION_CLOSED", `${session} is terminated`);
  const held =
    lease.token !== "" &&
    lease.epoch === claims.epoch &&
    leaseTokenHash(lease.token) === claims.ltk &&
    lease.owner === claims.pod;
  return held
    ? undefined
    : new AppError("SESSION_LEASE_LOST", `${session} is not held under this lease any more`);
}

/** Why the sandbox token's binding is not the current one, or undefined when it is. */
export function bindingProblem(
  claims: SandboxClaims,
  binding: Binding | null,
): AppError | undefined {
  const bound =
    binding !== null &&
    binding.sessionId === claims.sub &&
    binding.tenant === claims.ten &&
    binding.hand === claims.hand &&
    binding.generation === claims.gen &&
    binding.ip === claims.ip;
  return bound
    ? undefined
    : new AppError(
        "FORBIDDEN",
        `sandbox "${claims.sbx}" is not bound to session "${claims.sub}" any more`,
      );
}
