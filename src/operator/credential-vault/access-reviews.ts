import type { KubeClient } from "../../kube/client.ts";
import { subjectAccessReviews } from "../../kube/resources.ts";
import { BoundedMap } from "../../runtime/bounded-map.ts";
import type { Clock } from "../../runtime/clock.ts";
import type { Access, SecretRead } from "./plan.ts";

/** Role bindings are not watched: a withdrawal shows after this; a denial is asked about each time. */
const ALLOWED_MS = 600_000;
const MAX_KNOWN = 4096;

/** Asks the API server whether a service account may get a Secret; reads no Secret itself. */
export class AccessReviews {
  readonly #client: Pick<KubeClient, "create">;
  readonly #clock: Pick<Clock, "monotonic">;
  readonly #allowedAt = new BoundedMap<number>(MAX_KNOWN);

  constructor({
    client,
    clock,
  }: {
    client: Pick<KubeClient, "create">;
    clock: Pick<Clock, "monotonic">;
  }) {
    this.#client = client;
    this.#clock = clock;
  }

  /** Rejects as the client does. */
  async review(
    namespace: string,
    { serviceAccount, secret }: SecretRead,
    signal: AbortSignal,
  ): Promise<Access> {
    const account = `system:serviceaccount:${serviceAccount.namespace}:${serviceAccount.name}`;
    const question = JSON.stringify([account, namespace, secret]);
    const allowedAt = this.#allowedAt.get(question) ?? Number.NEGATIVE_INFINITY;
    if (this.#clock.monotonic() - allowedAt < ALLOWED_MS) {
      return { serviceAccount, secret, allowed: true };
    }
    const review = await this.#client.create(
      subjectAccessReviews,
      {
        apiVersion: "authorization.k8s.io/v1",
        kind: "SubjectAccessReview",
        metadata: { name: "" },
        spec: {
          user: account,
          groups: ["system:serviceaccounts", `system:serviceaccounts:${serviceAccount.namespace}`],
          resourceAttributes: { namespace, verb: "get", resource: "secrets", name: secret },
        },
      },
      { signal },
    );
    const allowed = review.status?.allowed === true;
    if (allowed) this.#allowedAt.set(question, this.#clock.monotonic());
    return { serviceAccount, secret, allowed };
  }
}
