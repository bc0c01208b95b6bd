import type { TokensRequest, TokensResponse } from "../../protocol/proxy-api.ts";
import type { BindingReader, LeaseReader, SnapshotReader } from "../../protocol/session-ports.ts";
import {
  AUDIENCES,
  type Jwks,
  type SigningKey,
  signToken,
  TOKEN_LIFE_SECONDS,
} from "../../protocol/tokens.ts";
import { withDeadline } from "../../runtime/abort.ts";
import type { Clock } from "../../runtime/clock.ts";
import { type Caller, decide } from "./decision.ts";

/** A slower store counts as down: the harness asks again. */
const STORE_MS = 2000;

/** Signs session and execute tokens. The only holder of the signing key. */
export interface TokenIssuer {
  /** Throws what `decide` throws, or UNAVAILABLE when the store does not answer. */
  issue(request: TokensRequest, caller: Caller): Promise<TokensResponse>;
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
  const { key, clock } = deps;
  return {
    async issue(request, caller) {
      const facts = await withDeadline(clock, STORE_MS, "reading the session's lease", () =>
        readFacts(deps, request),
      );
      const grant = decide({ request, caller, namespace: deps.namespace, ...facts });
      const nowMs = clock.now();
      const times = { nowMs, lifeSeconds: TOKEN_LIFE_SECONDS };
      return {
        sessionToken: await signToken(key, AUDIENCES.session, grant.session, times),
        ...(grant.execute === undefined
          ? {}
          : { executeToken: await signToken(key, AUDIENCES.execute, grant.execute, times) }),
        // Claims count whole seconds from the second before.
        expiresAt: (Math.floor(nowMs / 1000) + TOKEN_LIFE_SECONDS) * 1000,
      };
    },
    async keys() {
      return { keys: [key.publicJwk] };
    },
  };
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
