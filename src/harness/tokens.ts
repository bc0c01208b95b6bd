import { type TokensRequest, type TokensResponse, tokensResponse } from "../protocol/proxy-api.ts";
import { withDeadline } from "../runtime/abort.ts";
import { type BackoffOptions, backoffMs } from "../runtime/backoff.ts";
import type { Clock } from "../runtime/clock.ts";
import {
  AppError,
  codeOf,
  describeError,
  ERROR_CODES,
  type ErrorCode,
  hasCode,
} from "../runtime/errors.ts";
import type { Rng } from "../runtime/rng.ts";
import type { Lease } from "../sessions/session-log.ts";

/** Where tokens come from: the sidecar in a cluster, a local signer in local mode. */
export interface TokenSource {
  /** Rejects with SESSION_LEASE_LOST when the lease is not current, UNAVAILABLE when nobody answers. */
  requestTokens(request: TokensRequest): Promise<TokensResponse>;
}

/** The tokens of one lease, asked for when first needed and again well before they expire. */
export interface SessionTokens {
  session(): Promise<string>;
  execute(sandboxId: string): Promise<string>;
  /** What the sandbox shows to the edge. */
  sandbox(sandboxId: string): Promise<string>;
  /** Forgets all: one was refused. */
  invalidate(): void;
}

const REQUEST_DEADLINE_MS = 10_000;
/** A token must outlive the longest wait between asking for it and its use. */
const RENEW_BEFORE_MS = 60_000;
/** How long an issuer that is behind the log is waited for before the caller hears of it. */
const CATCH_UP_MS = 10_000;
const CATCH_UP: BackoffOptions = { baseMs: 100, maxMs: 2000 };

export class SidecarTokens implements TokenSource {
  readonly #url: string;
  readonly #clock: Clock;
  readonly #fetch: typeof fetch;

  constructor(deps: { sidecarUrl: string; clock: Clock; fetch: typeof fetch }) {
    this.#url = `${deps.sidecarUrl}/tokens`;
    this.#clock = deps.clock;
    this.#fetch = deps.fetch;
  }

  async requestTokens(request: TokensRequest): Promise<TokensResponse> {
    return await withDeadline(this.#clock, REQUEST_DEADLINE_MS, "asking for tokens", (signal) =>
      this.#post(request, signal),
    );
  }

  async #post(request: TokensRequest, signal: AbortSignal): Promise<TokensResponse> {
    const response = await this.#fetch(this.#url, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(request),
      signal,
    }).catch((cause: unknown) => {
      const message = `the proxy sidecar does not answer: ${describeError(cause)}`;
      throw new AppError("UNAVAILABLE", message, { retryable: true });
    });
    const body: unknown = await response.json().catch(() => undefined);
    if (!response.ok) throw refusal(response.status, body);
    const parsed = tokensResponse.safeParse(body);
    if (!parsed.success) throw new AppError("INTERNAL", "the sidecar's answer holds no tokens");
    return parsed.data;
  }
}

type TokenLease = Pick<Lease, "ref" | "token" | "lost" | "barrier">;

export class LeaseTokens implements SessionTokens {
  readonly #source: TokenSource;
  readonly #lease: TokenLease;
  readonly #clock: Clock;
  readonly #rng: Pick<Rng, "next">;
  /** By sandbox; '' for the session token alone. Promises, so that parallel callers ask once. */
  readonly #held = new Map<string, Promise<TokensResponse>>();
  /** Sandboxes whose next token must be a new one, not one that the source has kept. */
  readonly #refused = new Set<string>();

  constructor(deps: {
    source: TokenSource;
    lease: TokenLease;
    clock: Clock;
    rng: Pick<Rng, "next">;
  }) {
    this.#source = deps.source;
    this.#lease = deps.lease;
    this.#clock = deps.clock;
    this.#rng = deps.rng;
  }

  async session(): Promise<string> {
    return (await this.#fresh("")).sessionToken;
  }

  async execute(sandboxId: string): Promise<string> {
    const { executeToken } = await this.#fresh(sandboxId);
    if (executeToken !== undefined) return executeToken;
    throw new AppError("FORBIDDEN", `no execute token was issued for sandbox ${sandboxId}`);
  }

  async sandbox(sandboxId: string): Promise<string> {
    const { sandboxToken } = await this.#fresh(sandboxId);
    if (sandboxToken !== undefined) return sandboxToken;
    throw new AppError("FORBIDDEN", `no token for the edge was issued for sandbox ${sandboxId}`);
  }

  invalidate(): void {
    for (const sandboxId of this.#held.keys()) this.#refused.add(sandboxId);
    this.#held.clear();
  }

  async #fresh(sandboxId: string): Promise<TokensResponse> {
    const held = await this.#held.get(sandboxId)?.catch(() => undefined);
    if (held !== undefined && held.expiresAt - RENEW_BEFORE_MS > this.#clock.now()) return held;
    const { ref, token } = this.#lease;
    const asked = this.#ask({
      sessionId: ref.id,
      tenant: ref.tenant,
      leaseToken: token,
      ...(sandboxId === "" ? {} : { sandbox: { id: sandboxId } }),
      ...(this.#refused.has(sandboxId) ? { refresh: true } : {}),
    });
    this.#held.set(sandboxId, asked);
    asked.then(
      () => this.#refused.delete(sandboxId),
      // A failed request must not be remembered.
      () => this.#held.delete(sandboxId),
    );
    return await asked;
  }

  /**
   * The issuer may read a store that is behind: after a failover, or from a replica. Whether the lease
   * is lost, the log alone says; while it holds, a refusal is waited out.
   */
  async #ask(request: TokensRequest): Promise<TokensResponse> {
    const since = this.#clock.monotonic();
    for (let attempt = 1; ; attempt += 1) {
      try {
        return await this.#source.requestTokens(request);
      } catch (error) {
        if (!hasCode(error, "SESSION_LEASE_LOST") && !hasCode(error, "SESSION_NOT_FOUND")) {
          throw error;
        }
        await this.#lease.barrier();
        if (this.#clock.monotonic() - since >= CATCH_UP_MS) {
          const message = `no token for session ${request.sessionId}: the issuer does not know its lease, which holds by the log; the store that the issuer reads is behind`;
          throw new AppError("UNAVAILABLE", message, { retryable: true, cause: error });
        }
        await this.#clock.sleep(backoffMs(attempt, CATCH_UP, this.#rng), this.#lease.lost);
      }
    }
  }
}

function refusal(status: number, body: unknown): AppError {
  const error =
    typeof body === "object" && body !== null && "error" in body ? body.error : undefined;
  const code = codeOf(error);
  const known = code !== undefined && isErrorCode(code) ? code : undefined;
  const fallback: ErrorCode = status >= 500 ? "UNAVAILABLE" : "FORBIDDEN";
  const message = `the sidecar issues no token: ${describeError(error) || `status ${status}`}`;
  return new AppError(known ?? fallback, message, { retryable: status >= 500 });
}

function isErrorCode(code: string): code is ErrorCode {
  return Object.hasOwn(ERROR_CODES, code);
}
