import type { PolicyRule } from "../../src/operator/rbac.ts";

/**
 * Everything the service accounts of Drover may do, one line a resource: a line more is a right more,
 * for whoever takes over that process. Read a change here as a change of the threat model.
 */
export const GOLDEN = {
  "operator, in every namespace": `
    authentication.k8s.io/tokenreviews: create
    authorization.k8s.io/subjectaccessreviews: create
    drover.dev/agents/status: patch
    drover.dev/agents: get list watch
    drover.dev/agentsessions/finalizers: update
    drover.dev/agentsessions/status: patch
    drover.dev/agentsessions: delete get list patch watch
    drover.dev/credentialvaults/status: patch
    drover.dev/credentialvaults: get list watch
    drover.dev/harnesspools/finalizers: update
    drover.dev/harnesspools/status: patch
    drover.dev/harnesspools: get list watch
    drover.dev/sandboxtemplates/status: patch
    drover.dev/sandboxtemplates: get list watch
    events.k8s.io/events: create patch
    namespaces: get
    networking.k8s.io/networkpolicies: create delete get list patch watch
    pods: create delete get list watch
    serviceaccounts: create delete get list patch watch
  `,
  "operator, in the install namespace": `
    apps/deployments [drover-edge]: delete
    apps/deployments: create get list patch watch
    configmaps [drover-issuer-keys]: patch
    configmaps [drover-logs-to-erase]: get patch
    coordination.k8s.io/leases: create get patch
    policy/poddisruptionbudgets: create get patch
    secrets [drover-issuer-key]: get patch
  `,
  "uninstall hook, in every namespace": `
    drover.dev/agentsessions: list patch
    networking.k8s.io/networkpolicies: delete list
    pods: delete list
    serviceaccounts: delete list
  `,
  "uninstall hook, in the install namespace": `
    apps/deployments: delete list patch
    coordination.k8s.io/leases [drover-operator]: delete
    policy/poddisruptionbudgets: delete list
  `,
};

export const lines = (text: string): string[] =>
  text
    .trim()
    .split("\n")
    .map((line) => line.trim());

export function rightsOf(rules: readonly PolicyRule[]): string[] {
  return rules
    .flatMap(({ apiGroups, resources, resourceNames, verbs }) =>
      apiGroups.flatMap((group) =>
        resources.map((resource) => {
          const only = resourceNames === undefined ? "" : ` [${resourceNames.join(" ")}]`;
          const name = group === "" ? resource : `${group}/${resource}`;
          return `${name}${only}: ${verbs.toSorted().join(" ")}`;
        }),
      ),
    )
    .toSorted((a, b) => (a < b ? -1 : 1));
}
