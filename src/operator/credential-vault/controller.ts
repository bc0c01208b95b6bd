import { credentialVaultSpec } from "../../api/credential-vault.ts";
import type { KubeClient } from "../../kube/client.ts";
import {
  type Controller,
  type PassContext,
  type Watch,
  watchMapped,
  watchObjects,
} from "../../kube/controller.ts";
import type { Informer } from "../../kube/informer.ts";
import { isBeingDeleted, objectKey } from "../../kube/objects.ts";
import { type Outcome, settled, settledFor, stalled } from "../../kube/outcome.ts";
import { subjectAccessReviews } from "../../kube/resources.ts";
import type { Clock } from "../../runtime/clock.ts";
import { writeConditions } from "../accepted-spec.ts";
import { notWithoutHelp } from "../conditions.ts";
import { type CredentialVault, credentialVaults, type HarnessPool } from "../kinds.ts";
import { poolServiceAccount } from "../names.ts";
import { parseStoredSpec } from "../stored-spec.ts";
import { type Access, planConditions, secretsOf } from "./plan.ts";

export interface CredentialVaultControllerDeps {
  client: Pick<KubeClient, "create" | "patchStatus">;
  vaults: Informer<CredentialVault>;
  pools: Informer<HarnessPool>;
  installNamespace: string;
  clock: Pick<Clock, "now">;
}

/** Role bindings are not watched: a grant shows after this, a withdrawal after the longer time. */
const DENIED_RECHECK_MS = 15_000;
const ALLOWED_RECHECK_MS = 600_000;

/**
 * CredentialVault: can the proxies read what it names? Asked by SubjectAccessReview for the service
 * account of each pool that serves the namespace; no Secret is read here.
 */
export class CredentialVaultController implements Controller {
  readonly name = "credential-vault";
  readonly watches: readonly Watch[];
  readonly #deps: CredentialVaultControllerDeps;

  constructor(deps: CredentialVaultControllerDeps) {
    this.#deps = deps;
    this.watches = [
      watchObjects(deps.vaults),
      watchMapped(deps.pools, (pool) =>
        // Which accounts there are changes with the pools, not with their replicas.
        pool.status?.code === undefined ? [] : deps.vaults.list().filter(isDenied).map(objectKey),
      ),
    ];
  }

  async reconcile(key: string, { signal }: PassContext): Promise<Outcome> {
    const vault = this.#deps.vaults.get(key);
    if (vault === undefined || isBeingDeleted(vault)) return settled;
    const write = { ...this.#deps, type: credentialVaults };
    const parsed = parseStoredSpec(vault, credentialVaultSpec);
    if (!parsed.ok) {
      await writeConditions(write, vault, notWithoutHelp("InvalidSpec", parsed.problem));
      return stalled("InvalidSpec", parsed.problem);
    }
    const namespace = vault.metadata.namespace ?? "";
    const accesses: Access[] = [];
    for (const pool of this.#poolsFor(namespace)) {
      for (const secret of secretsOf(parsed.spec)) {
        accesses.push(await this.#review(pool, namespace, secret, signal));
      }
    }
    await writeConditions(write, vault, planConditions(namespace, accesses));
    const denied = accesses.some(({ allowed }) => !allowed);
    return settledFor(denied ? DENIED_RECHECK_MS : ALLOWED_RECHECK_MS);
  }

  /** A pool that selects namespaces by label counts: better asked for nothing than not asked. */
  #poolsFor(namespace: string): HarnessPool[] {
    const { pools, installNamespace } = this.#deps;
    return pools
      .list()
      .filter(({ metadata }) => metadata.namespace === installNamespace)
      .filter(({ spec }) => {
        const from = spec.allowedNamespaces?.from ?? "Same";
        return from !== "Same" || namespace === installNamespace;
      });
  }

  async #review(
    pool: HarnessPool,
    namespace: string,
    secret: string,
    signal: AbortSignal,
  ): Promise<Access> {
    const serviceAccount = {
      namespace: this.#deps.installNamespace,
      name: poolServiceAccount(pool.metadata.name),
    };
    const review = await this.#deps.client.create(
      subjectAccessReviews,
      {
        apiVersion: "authorization.k8s.io/v1",
        kind: "SubjectAccessReview",
        metadata: { name: "" },
        spec: {
          user: `system:serviceaccount:${serviceAccount.namespace}:${serviceAccount.name}`,
          groups: ["system:serviceaccounts", `system:serviceaccounts:${serviceAccount.namespace}`],
          resourceAttributes: { namespace, verb: "get", resource: "secrets", name: secret },
        },
      },
      { signal },
    );
    return { serviceAccount, secret, allowed: review.status?.allowed === true };
  }
}

function isDenied({ status }: CredentialVault): boolean {
  const ready = status?.conditions?.find(({ type }) => type === "Ready");
  return ready?.reason !== "Accepted";
}
