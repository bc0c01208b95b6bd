import type { KubeClient } from "../../kube/client.ts";
import { unlessNotFound } from "../../kube/errors.ts";
import type { Informer } from "../../kube/informer.ts";
import { namespaces } from "../../kube/resources.ts";
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
  const vaults = new Map<string, CredentialVault>();
  for (const { name } of session.spec.vaultRefs ?? []) {
    const vault = deps.vaults.get(at(name));
    if (vault !== undefined) vaults.set(name, vault);
  }
  const pool = deps.pools.get(`${deps.installNamespace}/${poolName(session)}`);
  const selects = pool?.spec.allowedNamespaces?.from === "Selector";
  return {
    session,
    installNamespace: deps.installNamespace,
    agent: deps.agents.get(at(session.spec.agentRef?.name)),
    template: deps.templates.get(at(session.spec.sandboxTemplateRef?.name)),
    vaults,
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
