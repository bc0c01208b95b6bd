import {
  FIELD_MANAGERS,
  LABELS,
  SANDBOX_NETWORK_POLICY,
  SANDBOX_SERVICE_ACCOUNT,
} from "../../api/names.ts";
import type { KubeClient } from "../../kube/client.ts";
import {
  type Controller,
  type PassContext,
  type Watch,
  watchMapped,
} from "../../kube/controller.ts";
import { isNamespaceTerminating, unlessNotFound } from "../../kube/errors.ts";
import type { Informer } from "../../kube/informer.ts";
import type { KubeObject, ResourceType } from "../../kube/objects.ts";
import { type Outcome, settled } from "../../kube/outcome.ts";
import { applyOwned } from "../../kube/ownership.ts";
import { type ServiceAccount, serviceAccounts } from "../../kube/resources.ts";
import { type AgentSession, type NetworkPolicy, networkPolicies, type Pod } from "../kinds.ts";
import { MANAGER } from "../names.ts";
import { buildNetworkPolicy, buildServiceAccount } from "./resources.ts";

export interface NamespaceIsolationDeps {
  client: Pick<KubeClient, "get" | "apply" | "delete">;
  installNamespace: string;
  /** Whether there is an edge, for sandboxes to reach. */
  edge: boolean;
  /** With the index `namespace`. */
  sessions: Informer<AgentSession>;
  /** Sandbox pods, with the index `namespace`. */
  pods: Informer<Pod>;
  /** Those we manage. */
  policies: Informer<NetworkPolicy>;
  accounts: Informer<ServiceAccount>;
}

const OURS = { label: LABELS.managedBy, value: MANAGER };

/**
 * Per namespace: the sandboxes' service account and NetworkPolicy, made with its first session and
 * removed with its last (docs/design/sandbox-pod.md#isolation-of-a-namespace). The key is the
 * namespace.
 */
export class NamespaceIsolationController implements Controller {
  readonly name = "namespace-isolation";
  readonly watches: readonly Watch[];
  readonly #deps: NamespaceIsolationDeps;
  /** Namespaces this process has applied to since it last removed from them. */
  readonly #applied = new Set<string>();

  constructor(deps: NamespaceIsolationDeps) {
    this.#deps = deps;
    const ofNamespace = (object: KubeObject) => [object.metadata.namespace ?? ""];
    this.watches = [
      // Only first and last matter; a change of a session that stays does not.
      (enqueue) =>
        deps.sessions.onChange(({ type, object }) => {
          if (type !== "updated") enqueue.add(object.metadata.namespace ?? "");
        }),
      (enqueue) =>
        deps.pods.onChange(({ type, object }) => {
          if (type === "deleted") enqueue.add(object.metadata.namespace ?? "");
        }),
      watchMapped(deps.policies, ofNamespace),
      watchMapped(deps.accounts, ofNamespace),
    ];
  }

  /** True when sandboxes may be made: their policy and account are there, and not about to go. */
  isolated(namespace: string): boolean {
    const { policies, accounts } = this.#deps;
    return (
      this.#applied.has(namespace) &&
      policies.get(`${namespace}/${SANDBOX_NETWORK_POLICY}`) !== undefined &&
      accounts.get(`${namespace}/${SANDBOX_SERVICE_ACCOUNT}`) !== undefined
    );
  }

  async reconcile(namespace: string, { signal }: PassContext): Promise<Outcome> {
    const { sessions, pods } = this.#deps;
    const needed =
      sessions.byIndex("namespace", namespace).length > 0 ||
      pods.byIndex("namespace", namespace).length > 0;
    if (needed) await this.#apply(namespace, signal);
    else await this.#remove(namespace, signal);
    return settled;
  }

  async #apply(namespace: string, signal: AbortSignal): Promise<void> {
    const { client, installNamespace, edge } = this.#deps;
    const options = { fieldManager: FIELD_MANAGERS.children, force: true, signal };
    const policy = buildNetworkPolicy(namespace, { installNamespace, edge });
    try {
      await applyOwned(client, serviceAccounts, buildServiceAccount(namespace), OURS, options);
      await applyOwned(client, networkPolicies, policy, OURS, options);
    } catch (error) {
      // It goes, and all that is in it.
      if (!isNamespaceTerminating(error)) throw error;
      return;
    }
    this.#applied.add(namespace);
  }

  async #remove(namespace: string, signal: AbortSignal): Promise<void> {
    const { policies, accounts } = this.#deps;
    this.#applied.delete(namespace);
    const policy = policies.get(`${namespace}/${SANDBOX_NETWORK_POLICY}`);
    const account = accounts.get(`${namespace}/${SANDBOX_SERVICE_ACCOUNT}`);
    await this.#delete(networkPolicies, policy, signal);
    await this.#delete(serviceAccounts, account, signal);
  }

  async #delete(
    type: ResourceType,
    object: KubeObject | undefined,
    signal: AbortSignal,
  ): Promise<void> {
    if (object === undefined) return;
    const { uid } = object.metadata;
    const options = { signal, ...(uid === undefined ? {} : { uid }) };
    await unlessNotFound(this.#deps.client.delete(type, object.metadata, options));
  }
}
