import type { KubeClient } from "../../kube/client.ts";
import type { Watch } from "../../kube/controller.ts";
import { unlessNotFound } from "../../kube/errors.ts";
import type { Informer } from "../../kube/informer.ts";
import { objectKey } from "../../kube/objects.ts";
import { namespaces } from "../../kube/resources.ts";
import { findCondition } from "../../kube/status.ts";
import type {
  Agent,
  AgentSession,
  CredentialVault,
  HarnessPool,
  SandboxTemplate,
} from "../kinds.ts";
import type { SessionObjects } from "./resolve.ts";
import { sessionIdIndex } from "./session-ref.ts";

/** What an AgentSession may refer to, found in the caches; and which sessions refer to an object. */

export interface ReferenceCaches {
  sessions: Informer<AgentSession>;
  agents: Informer<Agent>;
  templates: Informer<SandboxTemplate>;
  vaults: Informer<CredentialVault>;
  pools: Informer<HarnessPool>;
}

export interface ReferencesDeps extends ReferenceCaches {
  client: Pick<KubeClient, "get">;
  installNamespace: string;
}

/** Wakes the sessions of a vault when it comes, goes, or can be used or not: not for each read of it. */
export function watchVaults({
  vaults,
  sessions,
}: Pick<ReferenceCaches, "vaults" | "sessions">): Watch {
  return (enqueue) =>
    vaults.onChange(({ type, key, object, previous }) => {
      if (type === "updated" && readinessOf(object) === readinessOf(previous)) return;
      for (const session of sessions.byIndex("vault", key)) enqueue.add(objectKey(session));
    });
}

function readinessOf(vault: CredentialVault | undefined): string {
  const ready = findCondition(vault?.status?.conditions, "Ready");
  return JSON.stringify([ready?.status, ready?.reason, ready?.message]);
}

/** The vaults that a session names, as far as they exist. */
export function vaultsOf(
  { vaults }: Pick<ReferenceCaches, "vaults">,
  { metadata, spec }: AgentSession,
): ReadonlyMap<string, CredentialVault> {
  const found = new Map<string, CredentialVault>();
  for (const { name } of spec.vaultRefs ?? []) {
    const vault = vaults.get(`${metadata.namespace}/${name}`);
    if (vault !== undefined) found.set(name, vault);
  }
  return found;
}

/** Index functions of the AgentSession cache. Values are keys of the objects referred to. */
export const sessionIndexes = {
  agent: (session: AgentSession) => inNamespace(session, session.spec.agentRef?.name),
  template: (session: AgentSession) => inNamespace(session, session.spec.sandboxTemplateRef?.name),
  vault: (session: AgentSession) =>
    (session.spec.vaultRefs ?? []).flatMap(({ name }) => inNamespace(session, name)),
  pool: (session: AgentSession) => [poolName(session)],
  namespace: (session: AgentSession) => [session.metadata.namespace ?? ""],
  sessionId: sessionIdIndex,
} as const;

function inNamespace(session: AgentSession, name: string | undefined): string[] {
  return name === undefined ? [] : [`${session.metadata.namespace}/${name}`];
}

function poolName(session: AgentSession): string {
  // A stored object may lack the default.
  return session.spec.harnessPoolRef?.name ?? "default";
}

export async function gatherReferences(
  deps: ReferencesDeps,
  session: AgentSession,
  signal: AbortSignal,
): Promise<SessionObjects> {
  const { namespace = "" } = session.metadata;
  const at = (name: string | undefined) => `${namespace}/${name}`;
  const pool = deps.pools.get(`${deps.installNamespace}/${poolName(session)}`);
  const selects = pool?.spec.allowedNamespaces?.from === "Selector";
  return {
    session,
    installNamespace: deps.installNamespace,
    agent: deps.agents.get(at(session.spec.agentRef?.name)),
    template: deps.templates.get(at(session.spec.sandboxTemplateRef?.name)),
    vaults: vaultsOf(deps, session),
    vaultsAreReviewed: true,
    pool,
    ...(selects ? { namespaceLabels: await labelsOf(deps, namespace, signal) } : {}),
  };
}

/** Read when a pool selects by label, instead of a watch on all namespaces. */
async function labelsOf(
  deps: Pick<ReferencesDeps, "client">,
  name: string,
  signal: AbortSignal,
): Promise<Record<string, string>> {
  const found = await unlessNotFound(deps.client.get(namespaces, { name }, { signal }));
  return found?.metadata.labels ?? {};
}

/** The pool that a session was made for, and no other: one made again by that name has its own sessions. */
export function pinnedPool(
  deps: Pick<ReferencesDeps, "pools" | "installNamespace">,
  { name, uid }: { name: string; uid: string },
): HarnessPool | undefined {
  const pool = deps.pools.get(`${deps.installNamespace}/${name}`);
  return pool?.metadata.uid === uid ? pool : undefined;
}
