import { EDGE } from "../../api/names.ts";
import type { TokensRequest } from "../../protocol/proxy-api.ts";
import type { LeaseState } from "../../protocol/session-ports.ts";
import type { SessionSnapshot } from "../../protocol/snapshot.ts";
import { type Binding, bindingProblem, leaseProblem } from "../../protocol/token-holder.ts";
import {
  type ExecuteClaims,
  leaseTokenHash,
  type SandboxClaims,
  type SessionClaims,
  type VaultClaims,
} from "../../protocol/tokens.ts";
import { AppError, type ErrorCode } from "../../runtime/errors.ts";
import { poolServiceAccount } from "../names.ts";

/** Who asks: established by TokenReview; in local mode, the one process there is. */
export interface Caller {
  podUid: string;
  /** `<namespace>/<service account>`. */
  serviceAccount: string;
}

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
  /** For the sandbox in the request. */
  hand?: { execute: Omit<ExecuteClaims, "exp">; sandbox: Omit<SandboxClaims, "exp"> };
}

/**
 * Whether the caller may have tokens for this session, and with which claims
 * (docs/design/security.md#tokens): it holds the lease it shows, its pod is the holder, the session
 * lives and belongs to the caller's pool, and a sandbox it asks for is bound to the session. Pure.
 * Throws an AppError that names the failed check.
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
      : { hand: handClaims(facts, request.sandbox.id, lease.epoch) }),
  };
}

/** What somebody showed to a proxy, and what the store says of it now. */
export type ShownToken =
  | { kind: "session"; claims: SessionClaims; lease: LeaseState | null }
  | { kind: "sandbox"; claims: SandboxClaims; binding: Binding | null; lease: LeaseState | null };

export interface VaultTokenFacts {
  caller: Caller;
  /** Namespace of the install. */
  namespace: string;
  /** Its signature, audience and life are checked. */
  shown: ShownToken;
  /** Name of the CredentialVault that is to be opened. */
  vault: string;
  snapshot: SessionSnapshot | null;
}

/** The token a caller may hand in: sandboxes come to the edge, harnesses to the sidecar of their pod. */
export function shownTo(caller: Caller, namespace: string): ShownToken["kind"] {
  return caller.serviceAccount === `${namespace}/${EDGE}` ? "sandbox" : "session";
}

/**
 * Whether a proxy may open this vault for the session whose token it was shown, and with which
 * claims (docs/design/security.md#tokens, docs/design/security.md#vault): what the token says still
 * holds, the proxy serves that session, and the session's frozen snapshot names the vault. Pure.
 * Throws an AppError that names the failed check.
 */
export function decideVaultToken(facts: VaultTokenFacts): VaultClaims {
  const { shown, snapshot, vault } = facts;
  const { sub, ten } = shown.claims;
  const session = `session "${sub}"`;
  if (snapshot === null || !isOf(snapshot, { sessionId: sub, tenant: ten })) {
    throw refusal("SESSION_NOT_FOUND", `${session} does not exist in "${ten}"`);
  }
  const server = shown.kind === "session" ? poolServiceAccount(snapshot.pool.name) : EDGE;
  if (facts.caller.serviceAccount !== `${facts.namespace}/${server}`) {
    throw refusal("FORBIDDEN", `${session} is not served by the caller`);
  }
  if (shown.kind === "session" && shown.claims.pod !== facts.caller.podUid) {
    throw refusal("FORBIDDEN", "the session token was issued to another pod");
  }
  const problem =
    shown.kind === "session"
      ? leaseProblem(shown.claims, shown.lease)
      : bindingProblem(shown.claims, shown.binding, shown.lease);
  if (problem !== undefined) throw refusal(problem.code, problem.message);
  if (!snapshot.vaults.some(({ name }) => name === vault)) {
    throw refusal("FORBIDDEN", `${session} does not name credential vault "${vault}"`);
  }
  return { sub, ten, vlt: vault, vid: `${ten}:${vault}` };
}

function handClaims(
  { request, binding }: IssueFacts,
  sandboxId: string,
  epoch: number,
): NonNullable<Grant["hand"]> {
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
  const common = {
    sub: request.sessionId,
    ten: request.tenant,
    hand: binding.hand,
    gen: binding.generation,
    sbx: sandboxId,
  };
  return { execute: { ...common, epoch }, sandbox: { ...common, ip: binding.ip } };
}

function isOf(
  snapshot: SessionSnapshot,
  session: Pick<TokensRequest, "sessionId" | "tenant">,
): boolean {
  return snapshot.sessionId === session.sessionId && snapshot.tenant === session.tenant;
}

function refusal(code: ErrorCode, why: string): AppError {
  return new AppError(code, `no token: ${why}`);
}
