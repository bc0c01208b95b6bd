import type { TokensRequest } from "../../protocol/proxy-api.ts";
import type { BindingReader, LeaseState } from "../../protocol/session-ports.ts";
import type { SessionSnapshot } from "../../protocol/snapshot.ts";
import { type ExecuteClaims, leaseTokenHash, type SessionClaims } from "../../protocol/tokens.ts";
import { AppError, type ErrorCode } from "../../runtime/errors.ts";
import { poolServiceAccount } from "../names.ts";

/** Who asks: established by TokenReview; in local mode, the one process there is. */
export interface Caller {
  podUid: string;
  /** `<namespace>/<service account>`. */
  serviceAccount: string;
}

export type Binding = NonNullable<Awaited<ReturnType<BindingReader["readBinding"]>>>;

export interface IssueFacts {
  request: TokensRequest;
  caller: Caller;
  /** Namespace of the install, where harness pods and their service accounts live. */
  namespace: string;
  lease: LeaseState | null;
  snapshot: SessionSnapshot | null;
  /** Of the sandbox in the request; null when none was asked for or it is bound to nobody. */
  binding: Binding | null;
}

export interface Grant {
  session: Omit<SessionClaims, "exp">;
  execute?: Omit<ExecuteClaims, "exp">;
}

/**
 * Whether the caller may have tokens for this session, and with which claims (security §3): it holds
 * the lease it shows, its pod is the holder, the session lives and belongs to the caller's pool, and a
 * sandbox it asks for is bound to the session. Pure. Throws an AppError that names the failed check.
 */
export function decide(facts: IssueFacts): Grant {
  const { request, caller, lease, snapshot } = facts;
  const session = `session "${request.sessionId}"`;
  if (lease === null || snapshot === null || !isOf(snapshot, request)) {
    throw refusal("SESSION_NOT_FOUND", `${session} does not exist in "${request.tenant}"`);
  }
  if (caller.serviceAccount !== `${facts.namespace}/${poolServiceAccount(snapshot.pool.name)}`) {
    throw refusal("FORBIDDEN", `${session} is not served by the caller's harness pool`);
  }
  if (lease.terminated) throw refusal("SESSION_CLOSED", `${session} is terminated`);
  if (lease.token === "" || lease.token !== request.leaseToken) {
    throw refusal("SESSION_LEASE_LOST", `${session} is not held under this lease`);
  }
  if (lease.owner !== caller.podUid) {
    throw refusal("FORBIDDEN", `${session} is held by another pod`);
  }
  return {
    session: {
      sub: request.sessionId,
      ten: request.tenant,
      ver: snapshot.agent.revision,
      epoch: lease.epoch,
      ltk: leaseTokenHash(lease.token),
      pod: caller.podUid,
    },
    ...(request.sandbox === undefined
      ? {}
      : { execute: executeClaims(facts, request.sandbox.id, lease.epoch) }),
  };
}

function executeClaims(
  { request, binding }: IssueFacts,
  sandboxId: string,
  epoch: number,
): Omit<ExecuteClaims, "exp"> {
  const isBound =
    binding !== null &&
    binding.sessionId === request.sessionId &&
    binding.tenant === request.tenant;
  if (!isBound) {
    throw refusal(
      "FORBIDDEN",
      `sandbox "${sandboxId}" is not bound to session "${request.sessionId}"`,
    );
  }
  return {
    sub: request.sessionId,
    ten: request.tenant,
    hand: binding.hand,
    gen: binding.generation,
    sbx: sandboxId,
    epoch,
  };
}

function isOf(snapshot: SessionSnapshot, request: TokensRequest): boolean {
  return snapshot.sessionId === request.sessionId && snapshot.tenant === request.tenant;
}

function refusal(code: ErrorCode, why: string): AppError {
  return new AppError(code, `no token: ${why}`);
}
