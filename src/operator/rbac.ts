import { EDGE } from "../api/names.ts";
import { LOGS_TO_ERASE } from "./agent-session/erasures.ts";
import { ISSUER_KEYS } from "./issuer/published-keys.ts";
import { LEADER_LEASE } from "./names.ts";

/**
 * All that the operator's and the cleanup hook's service accounts may do; the chart's roles are
 * tested against it. No Secret but the issuer's by name, no `pods/exec`, `attach`, `portforward` or
 * `pods/ephemeralcontainers`, no role or binding.
 */

export interface PolicyRule {
  apiGroups: string[];
  resources: string[];
  resourceNames?: string[];
  verbs: string[];
}

const watch = ["get", "list", "watch"];

/** ClusterRole of the operator. */
export const OPERATOR_CLUSTER_RULES: readonly PolicyRule[] = [
  { apiGroups: ["drover.dev"], resources: ["agentsessions"], verbs: [...watch, "patch", "delete"] },
  {
    apiGroups: ["drover.dev"],
    resources: ["agents", "sandboxtemplates", "credentialvaults", "harnesspools"],
    verbs: watch,
  },
  {
    apiGroups: ["drover.dev"],
    resources: [
      "agentsessions/status",
      "agents/status",
      "sandboxtemplates/status",
      "credentialvaults/status",
      "harnesspools/status",
    ],
    verbs: ["patch"],
  },
  // blockOwnerDeletion on children needs it where OwnerReferencesPermissionEnforcement is on.
  {
    apiGroups: ["drover.dev"],
    resources: ["agentsessions/finalizers", "harnesspools/finalizers"],
    verbs: ["update"],
  },
  { apiGroups: [""], resources: ["pods"], verbs: [...watch, "create", "delete"] },
  {
    apiGroups: [""],
    resources: ["serviceaccounts"],
    verbs: [...watch, "create", "patch", "delete"],
  },
  {
    apiGroups: ["networking.k8s.io"],
    resources: ["networkpolicies"],
    verbs: [...watch, "create", "patch", "delete"],
  },
  // Labels of a session's namespace, when a pool selects namespaces by label.
  { apiGroups: [""], resources: ["namespaces"], verbs: ["get"] },
  { apiGroups: ["events.k8s.io"], resources: ["events"], verbs: ["create", "patch"] },
  { apiGroups: ["authentication.k8s.io"], resources: ["tokenreviews"], verbs: ["create"] },
  { apiGroups: ["authorization.k8s.io"], resources: ["subjectaccessreviews"], verbs: ["create"] },
];

/** Role of the operator in the install namespace. */
export function operatorNamespaceRules(issuerSecret: string): PolicyRule[] {
  return [
    { apiGroups: ["apps"], resources: ["deployments"], verbs: [...watch, "create", "patch"] },
    // When the edge is turned off; those of pools go with their pool.
    { apiGroups: ["apps"], resources: ["deployments"], resourceNames: [EDGE], verbs: ["delete"] },
    {
      apiGroups: ["policy"],
      resources: ["poddisruptionbudgets"],
      verbs: ["get", "create", "patch"],
    },
    {
      apiGroups: ["coordination.k8s.io"],
      resources: ["leases"],
      verbs: ["get", "create", "patch"],
    },
    {
      apiGroups: [""],
      resources: ["secrets"],
      resourceNames: [issuerSecret],
      verbs: ["get", "patch"],
    },
    { apiGroups: [""], resources: ["configmaps"], resourceNames: [ISSUER_KEYS], verbs: ["patch"] },
    {
      apiGroups: [""],
      resources: ["configmaps"],
      resourceNames: [LOGS_TO_ERASE],
      verbs: ["get", "patch"],
    },
  ];
}

/** ClusterRole of the uninstall hook. */
export const CLEANUP_CLUSTER_RULES: readonly PolicyRule[] = [
  { apiGroups: ["drover.dev"], resources: ["agentsessions"], verbs: ["list", "patch"] },
  { apiGroups: [""], resources: ["pods", "serviceaccounts"], verbs: ["list", "delete"] },
  { apiGroups: ["networking.k8s.io"], resources: ["networkpolicies"], verbs: ["list", "delete"] },
];

/** Role of the uninstall hook in the install namespace. */
export const CLEANUP_NAMESPACE_RULES: readonly PolicyRule[] = [
  { apiGroups: ["apps"], resources: ["deployments"], verbs: ["list", "patch", "delete"] },
  { apiGroups: ["policy"], resources: ["poddisruptionbudgets"], verbs: ["list", "delete"] },
  {
    apiGroups: ["coordination.k8s.io"],
    resources: ["leases"],
    resourceNames: [LEADER_LEASE],
    verbs: ["delete"],
  },
];
