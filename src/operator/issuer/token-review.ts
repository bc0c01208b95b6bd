import { createHash } from "node:crypto";
import type { KubeClient } from "../../kube/client.ts";
import { tokenReviews } from "../../kube/resources.ts";
import { ISSUER_AUDIENCE } from "../../protocol/proxy-api.ts";
import type { Clock } from "../../runtime/clock.ts";
import { AppError, describeError } from "../../runtime/errors.ts";
import type { Caller } from "./decision.ts";

/** How long an answer is believed: a deleted pod's token lives on for at most this long here. */
const CACHE_MS = 60_000;
const MAX_CACHED = 1000;
const REVIEW_MS = 5000;
const POD_UID = "authentication.kubernetes.io/pod-uid";

/** Says which pod a service account token belongs to. */
export interface TokenReviewer {
  /** Throws UNAUTHENTICATED for a token that is not good here, UNAVAILABLE without an answer. */
  review(token: string): Promise<Caller>;
}

/** Asks the API server for the token's pod, for the issuer's audience only; good answers are kept 60 s. */
export class KubeTokenReviewer implements TokenReviewer {
  readonly #client: Pick<KubeClient, "create">;
  readonly #clock: Clock;
  readonly #known = new Map<string, { caller: Caller; until: number }>();

  constructor({ client, clock }: { client: Pick<KubeClient, "create">; clock: Clock }) {
    this.#client = client;
    this.#clock = clock;
  }

  async review(token: string): Promise<Caller> {
    const hash = createHash("sha256").update(token).digest("base64");
    const now = this.#clock.monotonic();
    const known = this.#known.get(hash);
    if (known !== undefined && now < known.until) return known.caller;
    const caller = callerOf(await this.#ask(token));
    this.#forget(now);
    this.#known.set(hash, { caller, until: now + CACHE_MS });
    return caller;
  }

  async #ask(token: string) {
    try {
      const answer = await this.#client.create(
        tokenReviews,
        {
          apiVersion: "authentication.k8s.io/v1",
          kind: "TokenReview",
          metadata: { name: "" },
          spec: { token, audiences: [ISSUER_AUDIENCE] },
        },
        { timeoutMs: REVIEW_MS },
      );
      return answer.status;
    } catch (error) {
      throw new AppError("UNAVAILABLE", `the token cannot be reviewed: ${describeError(error)}`, {
        retryable: true,
      });
    }
  }

  #forget(now: number): void {
    for (const [hash, { until }] of this.#known) if (now >= until) this.#known.delete(hash);
    const oldest = this.#known.keys().next();
    if (this.#known.size >= MAX_CACHED && oldest.done !== true) this.#known.delete(oldest.value);
  }
}

interface ReviewStatus {
  authenticated?: boolean;
  audiences?: string[];
  user?: { username?: string; extra?: Record<string, string[]> };
}

/** Pure. Throws UNAUTHENTICATED unless the token is a pod's, for our audience. */
export function callerOf(status: ReviewStatus | undefined): Caller {
  // An API server that does not know audiences answers authenticated without naming one.
  if (status?.authenticated !== true || status.audiences?.includes(ISSUER_AUDIENCE) !== true) {
    throw refused(`is not valid for audience ${ISSUER_AUDIENCE}`);
  }
  const account = /^system:serviceaccount:([^:]+):([^:]+)$/.exec(status.user?.username ?? "");
  const podUid = status.user?.extra?.[POD_UID]?.[0];
  if (account === null || podUid === undefined || podUid === "") {
    throw refused("does not belong to a pod");
  }
  return { podUid, serviceAccount: `${account[1]}/${account[2]}` };
}

function refused(why: string): AppError {
  return new AppError("UNAUTHENTICATED", `the service account token ${why}`);
}
