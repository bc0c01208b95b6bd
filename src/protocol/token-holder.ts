import { AppError } from "../runtime/errors.ts";
import type { BindingReader, LeaseState } from "./session-ports.ts";
import { leaseTokenHash, type SandboxClaims, type SessionClaims } from "./tokens.ts";

/**
 * Whether what a token says still holds: its signature tells only that it once did (design:
 * docs/design/security.md#tokens). Asked by the proxies before they serve and by the issuer before
 * it signs.
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
  const ended = endedProblem(claims.sub, lease);
  if (ended !== undefined) return ended;
  const held =
    lease !== null &&
    lease.token !== "" &&
    lease.epoch === claims.epoch &&
    leaseTokenHash(lease.token) === claims.ltk &&
    lease.owner === claims.pod;
  return held
    ? undefined
    : new AppError(
        "SESSION_LEASE_LOST",
        `session "${claims.sub}" is not held under this lease any more`,
      );
}

function endedProblem(
  sessionId: string,
  lease: Pick<LeaseState, "terminated"> | null,
): AppError | undefined {
  const session = `session "${sessionId}"`;
  if (lease === null) return new AppError("SESSION_NOT_FOUND", `${session} does not exist`);
  return lease.terminated ? new AppError("SESSION_CLOSED", `${session} is terminated`) : undefined;
}

/**
 * Why the sandbox token's binding is not the current one, or undefined when it is. A session that
 * was terminated is over at once, also where the binding is not yet taken away.
 */
export function bindingProblem(
  claims: SandboxClaims,
  binding: Binding | null,
  lease: Pick<LeaseState, "terminated"> | null,
): AppError | undefined {
  const ended = endedProblem(claims.sub, lease);
  if (ended !== undefined) return ended;
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
