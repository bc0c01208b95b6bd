import type { V1PodSpec } from "@kubernetes/client-node";
import type { AgentSpec } from "../api/agent.ts";
import type { AgentSessionSpec, AgentSessionStatus } from "../api/agent-session.ts";
import type { CredentialVaultSpec, CredentialVaultStatus } from "../api/credential-vault.ts";
import type { Condition } from "../api/fields.ts";
import type { HarnessPoolSpec, HarnessPoolStatus } from "../api/harness-pool.ts";
import { API_VERSION } from "../api/names.ts";
import type { SandboxTemplateSpec } from "../api/sandbox-template.ts";
import type { KubeObject } from "../kube/objects.ts";
import { defineResource } from "../kube/resources.ts";

/**
 * The kinds the operator reads and writes, with their API addresses. A `spec` of ours is typed as the
 * CRD promises it; an object stored under a looser CRD may still break that promise, so `spec` is
 * parsed before a decision rests on it.
 */

export interface ConditionsStatus {
  observedGeneration?: number | undefined;
  conditions?: Condition[] | undefined;
}

export interface Agent extends KubeObject {
  spec: AgentSpec;
  status?: ConditionsStatus;
}

export interface AgentSession extends KubeObject {
  spec: AgentSessionSpec;
  status?: AgentSessionStatus;
}

export interface SandboxTemplate extends KubeObject {
  spec: SandboxTemplateSpec;
  status?: ConditionsStatus;
}

export interface HarnessPool extends KubeObject {
  spec: HarnessPoolSpec;
  status?: HarnessPoolStatus;
}

export interface CredentialVault extends KubeObject {
  spec: CredentialVaultSpec;
  status?: CredentialVaultStatus;
}

export const agents = defineResource<Agent>(API_VERSION, "Agent", "agents");
export const agentSessions = defineResource<AgentSession>(
  API_VERSION,
  "AgentSession",
  "agentsessions",
);
export const sandboxTemplates = defineResource<SandboxTemplate>(
  API_VERSION,
  "SandboxTemplate",
  "sandboxtemplates",
);
export const harnessPools = defineResource<HarnessPool>(API_VERSION, "HarnessPool", "harnesspools");
export const credentialVaults = defineResource<CredentialVault>(
  API_VERSION,
  "CredentialVault",
  "credentialvaults",
);

/** Why a container stopped or does not start, as it stands in a pod's status. */
export interface ContainerState {
  waiting?: { reason?: string; message?: string };
  running?: Record<string, unknown>;
  terminated?: { exitCode: number; reason?: string; message?: string };
}

export interface ContainerStatus {
  name: string;
  ready: boolean;
  restartCount: number;
  state?: ContainerState;
  lastState?: ContainerState;
}

export interface PodStatus {
  phase?: "Pending" | "Running" | "Succeeded" | "Failed" | "Unknown";
  reason?: string;
  message?: string;
  podIP?: string;
  conditions?: { type: string; status: string; reason?: string; message?: string }[];
  initContainerStatuses?: ContainerStatus[];
  containerStatuses?: ContainerStatus[];
}

export interface Pod extends KubeObject {
  spec: V1PodSpec;
  status?: PodStatus;
}

interface NetworkPeer {
  namespaceSelector?: { matchLabels: Record<string, string> };
  podSelector?: { matchLabels: Record<string, string> };
}

interface NetworkPort {
  protocol: "TCP";
  port: number;
}

/** (The library's class calls the wire's `from` `_from`.) */
export interface NetworkPolicy extends KubeObject {
  spec: {
    podSelector: { matchLabels: Record<string, string> };
    policyTypes: ("Ingress" | "Egress")[];
    ingress: { from: NetworkPeer[]; ports: NetworkPort[] }[];
    egress?: { to: NetworkPeer[]; ports: NetworkPort[] }[];
  };
}

interface PodTemplate {
  metadata: { labels: Record<string, string>; annotations?: Record<string, string> };
  spec: V1PodSpec;
}

export interface Deployment extends KubeObject {
  spec: {
    replicas: number;
    selector: { matchLabels: Record<string, string> };
    strategy: {
      type: "RollingUpdate";
      rollingUpdate: { maxUnavailable: number; maxSurge: number };
    };
    minReadySeconds?: number;
    template: PodTemplate;
  };
  status?: {
    observedGeneration?: number;
    replicas?: number;
    readyReplicas?: number;
    updatedReplicas?: number;
    conditions?: { type: string; status: string; reason?: string; message?: string }[];
  };
}

export interface PodDisruptionBudget extends KubeObject {
  spec: { maxUnavailable: number; selector: { matchLabels: Record<string, string> } };
}

export const pods = defineResource<Pod>("v1", "Pod", "pods");
export const networkPolicies = defineResource<NetworkPolicy>(
  "networking.k8s.io/v1",
  "NetworkPolicy",
  "networkpolicies",
);
export const deployments = defineResource<Deployment>("apps/v1", "Deployment", "deployments");
export const podDisruptionBudgets = defineResource<PodDisruptionBudget>(
  "policy/v1",
  "PodDisruptionBudget",
  "poddisruptionbudgets",
);
