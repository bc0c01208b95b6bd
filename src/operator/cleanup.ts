import {
  FINALIZER,
  LABELS,
  SANDBOX_NETWORK_POLICY,
  SANDBOX_SERVICE_ACCOUNT,
} from "../api/names.ts";
import type { KubeClient } from "../kube/client.ts";
import { unlessNotFound } from "../kube/errors.ts";
import { type KubeObject, type ResourceType, uidOf } from "../kube/objects.ts";
import { leases, serviceAccounts } from "../kube/resources.ts";
import type { Clock } from "../runtime/clock.ts";
import type { Logger } from "../runtime/logger.ts";
import {
  agentSessions,
  deployments,
  networkPolicies,
  podDisruptionBudgets,
  pods,
} from "./kinds.ts";
import { COMPONENTS, LEADER_LEASE, MANAGER } from "./names.ts";
import { sessionOwnerOf } from "./sandbox/sandbox-key.ts";

export interface CleanupDeps {
  client: Pick<KubeClient, "get" | "list" | "patch" | "delete">;
  clock: Clock;
  logger: Logger;
  namespace: string;
  /** Name of the operator's Deployment in that namespace. */
  operator: string;
}

export interface CleanupReport {
  finalizers: number;
  deleted: number;
}

/** How long the operator's pods may take to end; after that they may still be at work. */
const OPERATOR_GONE_MS = 45_000;
const LOOK_MS = 500;
const PAGE = 500;

/**
 * `drover cleanup`, before an uninstall (docs/design/operations.md#uninstall): stops the operator,
 * takes our finalizer from every AgentSession and deletes what the operator made: of pools, the
 * edge and the leader's Lease in the install namespace, of sandboxes in any. Objects of our kinds,
 * logs and CRDs stay. May be repeated.
 */
export async function cleanUp(deps: CleanupDeps, signal: AbortSignal): Promise<CleanupReport> {
  await stopOperator(deps, signal);
  const finalizers = await stripFinalizers(deps, signal);
  let deleted = 0;
  const { namespace } = deps;
  // Deployments first, or they would make their pods again.
  const { harness, edge, sandbox, isolation } = COMPONENTS;
  deleted += await deleteOurs(deps, deployments, { component: edge, namespace }, signal);
  for (const type of [deployments, podDisruptionBudgets]) {
    deleted += await deleteOurs(deps, type, { component: harness, namespace }, signal);
  }
  deleted += await deleteOurs(deps, pods, { component: sandbox }, signal, isSandbox);
  for (const type of [networkPolicies, serviceAccounts]) {
    deleted += await deleteOurs(deps, type, { component: isolation }, signal, isIsolation);
  }
  deleted += await deleteOurs(deps, serviceAccounts, { component: harness, namespace }, signal);
  const lease = { namespace, name: LEADER_LEASE };
  await unlessNotFound(deps.client.delete(leases, lease, { signal }));
  deps.logger.info({ finalizers, deleted }, "cleaned up");
  return { finalizers, deleted };
}

async function stopOperator(deps: CleanupDeps, signal: AbortSignal): Promise<void> {
  const { client, clock, namespace, operator, logger } = deps;
  const ref = { namespace, name: operator };
  const found = await unlessNotFound(
    client.patch(deployments, ref, { kind: "merge", body: { spec: { replicas: 0 } } }, { signal }),
  );
  if (found === undefined) return;
  const labels = Object.entries(found.spec.selector.matchLabels);
  const labelSelector = labels.map(([key, value]) => `${key}=${value}`).join(",");
  const deadline = clock.monotonic() + OPERATOR_GONE_MS;
  while (clock.monotonic() < deadline) {
    const { items } = await client.list(pods, { namespace, labelSelector, signal });
    if (items.length === 0) return;
    await clock.sleep(LOOK_MS, signal);
  }
  logger.warn({ name: operator }, "the operator's pods are still there; going on");
}

async function stripFinalizers({ client }: CleanupDeps, signal: AbortSignal): Promise<number> {
  let count = 0;
  for await (const session of everyObject(client, agentSessions, {}, signal)) {
    const { metadata } = session;
    if (!metadata.finalizers?.includes(FINALIZER)) continue;
    const finalizers = metadata.finalizers.filter((one) => one !== FINALIZER);
    const body = { metadata: { finalizers } };
    await unlessNotFound(
      client.patch(agentSessions, metadata, { kind: "merge", body }, { signal }),
    );
    count += 1;
  }
  return count;
}

/** Labels can be copied: what a tenant labelled like ours stays. */
function isSandbox(object: KubeObject): boolean {
  return sessionOwnerOf(object) !== undefined;
}

function isIsolation({ metadata }: KubeObject): boolean {
  return [SANDBOX_NETWORK_POLICY, SANDBOX_SERVICE_ACCOUNT].includes(metadata.name);
}

async function deleteOurs(
  { client }: CleanupDeps,
  type: ResourceType,
  where: { component: string; namespace?: string },
  signal: AbortSignal,
  isOurs: (object: KubeObject) => boolean = () => true,
): Promise<number> {
  const { component, ...scope } = where;
  const labelSelector = `${LABELS.managedBy}=${MANAGER},${LABELS.component}=${component}`;
  let count = 0;
  for await (const object of everyObject(client, type, { ...scope, labelSelector }, signal)) {
    if (!isOurs(object)) continue;
    const options = { uid: uidOf(object), propagation: "Background" as const, signal };
    await unlessNotFound(client.delete(type, object.metadata, options));
    count += 1;
  }
  return count;
}

async function* everyObject<T extends KubeObject>(
  client: Pick<KubeClient, "list">,
  type: ResourceType<T>,
  options: { namespace?: string; labelSelector?: string },
  signal: AbortSignal,
): AsyncGenerator<T> {
  let continueToken: string | undefined;
  do {
    const page = await client.list(type, {
      ...options,
      limit: PAGE,
      signal,
      ...(continueToken === undefined ? {} : { continueToken }),
    });
    yield* page.items;
    continueToken = page.continueToken;
  } while (continueToken !== undefined);
}
