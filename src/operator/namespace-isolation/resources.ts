import { LABELS, PORTS, SANDBOX_NETWORK_POLICY, SANDBOX_SERVICE_ACCOUNT } from "../../api/names.ts";
import type { ServiceAccount } from "../../kube/resources.ts";
import { EDGE_PODS } from "../edge/resources.ts";
import type { NetworkPolicy } from "../kinds.ts";
import { COMPONENTS, childLabels, MANAGER } from "../names.ts";

/** What a namespace with sessions gets, once, whatever the number of sessions. */

/** Nobody gives it rights, and no pod gets its token. */
export function buildServiceAccount(namespace: string): ServiceAccount {
  return {
    apiVersion: "v1",
    kind: "ServiceAccount",
    metadata: {
      name: SANDBOX_SERVICE_ACCOUNT,
      namespace,
      labels: childLabels(COMPONENTS.isolation, "sandboxes"),
    },
    automountServiceAccountToken: false,
  };
}

/**
 * Sandboxes: only harness pods of the install namespace come in, to the daemon's port, and nothing
 * goes out but to the edge there, to its port; without an edge nothing at all. No name service
 * either: the edge is reached by address. Policies are a union: another policy that selects these
 * pods can only open more.
 */
export function buildNetworkPolicy(
  namespace: string,
  install: { installNamespace: string; edge: boolean },
): NetworkPolicy {
  const there = (labels: Record<string, string>) => ({
    namespaceSelector: {
      matchLabels: { "kubernetes.io/metadata.name": install.installNamespace },
    },
    podSelector: { matchLabels: labels },
  });
  const edge = { to: [there(EDGE_PODS)], ports: [{ protocol: "TCP" as const, port: PORTS.edge }] };
  return {
    apiVersion: "networking.k8s.io/v1",
    kind: "NetworkPolicy",
    metadata: {
      name: SANDBOX_NETWORK_POLICY,
      namespace,
      labels: childLabels(COMPONENTS.isolation, "sandboxes"),
    },
    spec: {
      podSelector: { matchLabels: { [LABELS.sandbox]: "true" } },
      // No `egress` denies all of it. An empty list would say the same and be stored as nothing, so
      // that each apply would count as a change, wake this controller, and be made again.
      policyTypes: ["Ingress", "Egress"],
      ingress: [{ from: [there(HARNESS_PODS)], ports: [{ protocol: "TCP", port: PORTS.sandbox }] }],
      ...(install.edge ? { egress: [edge] } : {}),
    },
  };
}

const HARNESS_PODS = {
  [LABELS.component]: COMPONENTS.harness,
  [LABELS.managedBy]: MANAGER,
};
