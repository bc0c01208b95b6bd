import { credentialVaultSpec } from "../../api/credential-vault.ts";
import { EDGE } from "../../api/names.ts";
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
import type { CredentialReportReader, EntryReport } from "../../protocol/session-ports.ts";
import type { Clock } from "../../runtime/clock.ts";
import { writeConditions } from "../accepted-spec.ts";
import { notWithoutHelp } from "../conditions.ts";
import { type CredentialVault, credentialVaults, type HarnessPool } from "../kinds.ts";
import { poolServiceAccount } from "../names.ts";
import { parseStoredSpec } from "../stored-spec.ts";
import { AccessReviews } from "./access-reviews.ts";
import { type Access, planConditions, planEntries, type Readers, secretReads } from "./plan.ts";

export interface CredentialVaultControllerDeps {
  client: Pick<KubeClient, "create" | "patchStatus">;
  vaults: Informer<CredentialVault>;
  pools: Informer<HarnessPool>;
  /** What proxies tell of the entries they read. */
  reports: CredentialReportReader;
  installNamespace: string;
  /** Whether the install has a vault for entries with `vaultRef`. */
  vaultConfigured: boolean;
  /** Whether the install has an edge, which reads what is for repositories. */
  edgeConfigured: boolean;
  clock: Pick<Clock, "now" | "monotonic">;
}

/** Neither role bindings nor reports are watched: what changes there shows after this. */
const RECHECK_MS = 15_000;

/**
 * CredentialVault: can the proxies read what it names? Asked by SubjectAccessReview for the service
 * account of each pool that serves the namespace and of the edge, and copied from what the proxies report of their
 * reads (docs/design/security.md#which-credential); no Secret and no vault is read here.
 */
export class CredentialVaultController implements Controller {
  readonly name = "credential-vault";
  readonly watches: readonly Watch[];
  readonly #deps: CredentialVaultControllerDeps;
  readonly #access: AccessReviews;

  constructor(deps: CredentialVaultControllerDeps) {
    this.#deps = deps;
    this.#access = new AccessReviews(deps);
    this.watches = [
      watchObjects(deps.vaults),
      watchMapped(deps.pools, (pool) =>
        // Which accounts there are changes with the pools, not with their replicas.
        pool.status?.code === undefined ? [] : deps.vaults.list().filter(isDenied).map(objectKey),
      ),
    ];
  }

  async reconcile(key: string, { signal }: PassContext): Promise<Outcome> {
    const { vaults, vaultConfigured } = this.#deps;
    const vault = vaults.get(key);
    if (vault === undefined || isBeingDeleted(vault)) return settled;
    const write = { ...this.#deps, type: credentialVaults };
    const parsed = parseStoredSpec(vault, credentialVaultSpec);
    if (!parsed.ok) {
      await writeConditions(write, vault, notWithoutHelp("InvalidSpec", parsed.problem));
      return stalled("InvalidSpec", parsed.problem);
    }
    const { spec } = parsed;
    const { name, namespace = "" } = vault.metadata;
    const readers = this.#readersFor(namespace);
    const accesses: Access[] = [];
    for (const read of secretReads(spec, readers)) {
      accesses.push(await this.#access.review(namespace, read, signal));
    }
    const facts = { namespace, spec, readers, accesses, vaultConfigured };
    const entries = planEntries(facts, await this.#reports(namespace, name), vault.status?.entries);
    await writeConditions(write, vault, planConditions(facts, entries), { entries });
    return settledFor(RECHECK_MS);
  }

  /** Undefined while the store is away: the pools' conditions say so, and what was known stays. */
  async #reports(
    namespace: string,
    name: string,
  ): Promise<ReadonlyMap<string, EntryReport> | undefined> {
    try {
      return await this.#deps.reports.readCredentialReports(namespace, name);
    } catch {
      return undefined;
    }
  }

  /** A pool that selects namespaces by label counts: better asked for nothing than not asked. */
  #readersFor(tenant: string): Readers {
    const { pools, installNamespace: namespace, edgeConfigured } = this.#deps;
    const serving = pools
      .list()
      .filter(({ metadata }) => metadata.namespace === namespace)
      .filter(({ spec }) => {
        const from = spec.allowedNamespaces?.from ?? "Same";
        return from !== "Same" || tenant === namespace;
      });
    return {
      pools: serving.map(({ metadata }) => ({
        namespace,
        name: poolServiceAccount(metadata.name),
      })),
      edge: edgeConfigured ? { namespace, name: EDGE } : undefined,
    };
  }
}

function isDenied({ status }: CredentialVault): boolean {
  const ready = status?.conditions?.find(({ type }) => type === "Ready");
  return ready?.reason !== "Accepted";
}
