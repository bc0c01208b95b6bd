import { LABELS } from "../api/names.ts";
import type { RunningInformer } from "../kube/informer.ts";
import { type ServiceAccount, serviceAccounts } from "../kube/resources.ts";
import { type InformerDeps, WatchingInformer } from "../kube/watching-informer.ts";
import { sessionIndexes } from "./agent-session/references.ts";
import {
  type Agent,
  type AgentSession,
  agentSessions,
  agents,
  type CredentialVault,
  credentialVaults,
  type Deployment,
  deployments,
  type HarnessPool,
  harnessPools,
  type NetworkPolicy,
  networkPolicies,
  type Pod,
  pods,
  type SandboxTemplate,
  sandboxTemplates,
} from "./kinds.ts";
import { COMPONENTS, MANAGER } from "./names.ts";
import { podIndexes } from "./sandbox/sandbox-key.ts";

/** What the controllers read: each kind once, only ours where a label can say so. */
export interface Caches {
  sessions: RunningInformer<AgentSession>;
  agents: RunningInformer<Agent>;
  templates: RunningInformer<SandboxTemplate>;
  vaults: RunningInformer<CredentialVault>;
  pools: RunningInformer<HarnessPool>;
  sandboxPods: RunningInformer<Pod>;
  harnessPods: RunningInformer<Pod>;
  deployments: RunningInformer<Deployment>;
  policies: RunningInformer<NetworkPolicy>;
  accounts: RunningInformer<ServiceAccount>;
}

export function createCaches(deps: InformerDeps, installNamespace: string): Caches {
  const whole = <T>(object: T): T => object;
  const ours = `${LABELS.managedBy}=${MANAGER}`;
  const component = (name: string) => `${ours},${LABELS.component}=${name}`;
  const here = [installNamespace];
  return {
    sessions: new WatchingInformer(deps, {
      type: agentSessions,
      project: withoutManagedFields,
      indexes: sessionIndexes,
    }),
    agents: new WatchingInformer(deps, { type: agents, project: whole }),
    templates: new WatchingInformer(deps, { type: sandboxTemplates, project: whole }),
    vaults: new WatchingInformer(deps, { type: credentialVaults, project: whole }),
    pools: new WatchingInformer(deps, { type: harnessPools, project: whole }),
    sandboxPods: new WatchingInformer(deps, {
      type: pods,
      project: withoutManagedFields,
      labelSelector: `${component(COMPONENTS.sandbox)},${LABELS.sandbox}`,
      indexes: podIndexes,
    }),
    harnessPods: new WatchingInformer(deps, {
      type: pods,
      project: withoutManagedFields,
      namespaces: here,
      labelSelector: component(COMPONENTS.harness),
    }),
    deployments: new WatchingInformer(deps, {
      type: deployments,
      project: whole,
      namespaces: here,
      labelSelector: ours,
    }),
    policies: new WatchingInformer(deps, {
      type: networkPolicies,
      project: whole,
      labelSelector: component(COMPONENTS.isolation),
    }),
    accounts: new WatchingInformer(deps, {
      type: serviceAccounts,
      project: whole,
      labelSelector: component(COMPONENTS.isolation),
    }),
  };
}

function withoutManagedFields<T extends { metadata: object }>(object: T): T {
  return { ...object, metadata: { ...object.metadata, managedFields: undefined } };
}
