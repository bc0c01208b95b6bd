import type {
  TokensRequest,
  TokensResponse,
  VaultTokenRequest,
  VaultTokenResponse,
} from "../../protocol/proxy-api.ts";
import type { BindingReader, LeaseReader, SnapshotReader } from "../../protocol/session-ports.ts";
import {
  AUDIENCES,
  type Jwks,
  SANDBOX_TOKEN_LIFE_SECONDS,
  type SigningKey,
  sandboxClaims,
  sessionClaims,
  signToken,
  TOKEN_LIFE_SECONDS,
  VAULT_TOKEN_LIFE_SECONDS,
  verifyToken,
} from "../../protocol/tokens.ts";
import { withDeadline } from "../../runtime/abort.ts";
import type { Clock } from "../../runtime/clock.ts";
import { type Caller, decide, decideVaultToken, type ShownToken, shownTo } from "./decision.ts";

/** A slower store counts as down: the harness asks again. */
const STORE_MS = 2000;

/** Signs all tokens. The only holder of the signing key. */
export interface TokenIssuer {
  /** Throws what `decide` throws, or UNAVAILABLE when the store does not answer. */
  issue(request: TokensRequest, caller: Caller): Promise<TokensResponse>;
  /**
   * Throws UNAUTHENTICATED for a token that is not one of ours for this kind of caller, what
   * `decideVaultToken` throws, or UNAVAILABLE when the store does not answer.
   */
  vaultToken(request: VaultTokenRequest, caller: Caller): Promise<VaultTokenResponse>;
  keys(): Promise<Jwks>;
}

export interface IssuerDeps {
  key: SigningKey;
  /** Namespace of the install. */
  namespace: string;
  leases: LeaseReader;
  snapshots: SnapshotReader;
  bindings: BindingReader;
  clock: Clock;
}

/** The issuer itself, without a listener: local mode calls it in process with a key made at start. */
export function createIssuer(deps: IssuerDeps): TokenIssuer {
  const { key, clock, namespace } = deps;
  const sign = async (audience: keyof typeof AUDIENCES, claims: object, lifeSeconds: number) =>
    await signToken(key, AUDIENCES[audience], { ...claims }, { nowMs: clock.now(), lifeSeconds });
  return {
    async issue(request, caller) {
      const facts = await withDeadline(clock, STORE_MS, "reading the session's lease", () =>
        readFacts(deps, request),
      );
      const { session, hand } = decide({ request, caller, namespace, ...facts });
      const expiresAt = expiry(clock, TOKEN_LIFE_SECONDS);
      const sessionToken = await sign("session", session, TOKEN_LIFE_SECONDS);
      if (hand === undefined) return { sessionToken, expiresAt };
      return {
        sessionToken,
        executeToken: await sign("execute", hand.execute, TOKEN_LIFE_SECONDS),
        sandboxToken: await sign("sandbox", hand.sandbox, SANDBOX_TOKEN_LIFE_SECONDS),
        expiresAt,
      };
    },
    async vaultToken({ token, vault }, caller) {
      const facts = await withDeadline(clock, STORE_MS, "reading what the token names", () =>
        readShown(deps, token, shownTo(caller, namespace)),
      );
      const claims = decideVaultToken({ caller, namespace, vault, ...facts });
      const expiresAt = expiry(clock, VAULT_TOKEN_LIFE_SECONDS);
      return { vaultToken: await sign("vault", claims, VAULT_TOKEN_LIFE_SECONDS), expiresAt };
    },
    async keys() {
      return publicKeys(key);
    },
  };
}

/** Claims count whole seconds from the second before. */
function expiry(clock: Clock, lifeSeconds: number): number {
  return (Math.floor(clock.now() / 1000) + lifeSeconds) * 1000;
}

function publicKeys({ publicJwk }: SigningKey): Jwks {
  return { keys: [publicJwk] };
}

async function readFacts({ leases, snapshots, bindings }: IssuerDeps, request: TokensRequest) {
  const { tenant, sessionId, sandbox } = request;
  const [lease, snapshot, binding] = await Promise.all([
    leases.readLease(tenant, sessionId),
    snapshots.readSnapshot(tenant, sessionId),
    sandbox === undefined ? null : bindings.readBinding(sandbox.id),
  ]);
  return { lease, snapshot, binding };
}

async function readShown(deps: IssuerDeps, token: string, kind: ShownToken["kind"]) {
  const jwks = publicKeys(deps.key);
  const now = deps.clock.now();
  if (kind === "session") {
    const claims = await verifyToken(jwks, AUDIENCES.session, sessionClaims, token, now);
    const [lease, snapshot] = await Promise.all([
      deps.leases.readLease(claims.ten, claims.sub),
      deps.snapshots.readSnapshot(claims.ten, claims.sub),
    ]);
    return { shown: { kind, claims, lease }, snapshot };
  }
  const claims = await verifyToken(jwks, AUDIENCES.sandbox, sandboxClaims, token, now);
  const [binding, lease, snapshot] = await Promise.all([
    deps.bindings.readBinding(claims.sbx),
    deps.leases.readLease(claims.ten, claims.sub),
    deps.snapshots.readSnapshot(claims.ten, claims.sub),
  ]);
  return { shown: { kind, claims, binding, lease }, snapshot };
}
