import { createHash } from "node:crypto";
import type { TokensRequest, TokensResponse } from "../protocol/proxy-api.ts";
import { BoundedMap } from "../runtime/bounded-map.ts";
import type { Clock } from "../runtime/clock.ts";
import type { IssuerPort } from "./issuer-client.ts";

/** More leases than a pod can hold at one time, twice over (session and execute token). */
const MAX_CACHED = 4096;

/**
 * `/tokens`: asks the issuer and keeps the answer for two thirds of its life, so that a harness may
 * ask before every call. The lease token is part of the key: a new lease never gets an old answer,
 * and an answer is of no use to who does not hold the lease (each use checks it again).
 */
export class IssuedTokens {
  readonly #issuer: Pick<IssuerPort, "issue">;
  readonly #clock: Clock;
  readonly #cached = new BoundedMap<{ answer: Promise<TokensResponse>; freshUntil: number }>(
    MAX_CACHED,
  );

  constructor({ issuer, clock }: { issuer: Pick<IssuerPort, "issue">; clock: Clock }) {
    this.#issuer = issuer;
    this.#clock = clock;
  }

  async get(request: TokensRequest): Promise<TokensResponse> {
    const key = cacheKey(request);
    const cached = this.#cached.get(key);
    const mayKeep = request.refresh !== true;
    if (mayKeep && cached !== undefined && this.#clock.now() < cached.freshUntil)
      return await cached.answer;
    const entry = { answer: this.#issuer.issue(request), freshUntil: Number.POSITIVE_INFINITY };
    this.#cached.set(key, entry);
    try {
      const askedAt = this.#clock.now();
      const answer = await entry.answer;
      entry.freshUntil = askedAt + ((answer.expiresAt - askedAt) * 2) / 3;
      return answer;
    } catch (error) {
      if (this.#cached.get(key) === entry) this.#cached.delete(key);
      throw error;
    }
  }
}

function cacheKey({ sessionId, tenant, leaseToken, sandbox }: TokensRequest): string {
  return createHash("sha256")
    .update(JSON.stringify([sessionId, tenant, leaseToken, sandbox?.id ?? null]))
    .digest("base64");
}
