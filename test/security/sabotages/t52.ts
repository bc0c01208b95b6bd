import type { Sabotage } from "../sabotage.ts";

const test = "test/security/api/t52-rights.test.ts";
const operatorRoles = "charts/drover/templates/operator-rbac.yaml";

export const sabotages: readonly Sabotage[] = [
  {
    case: "T52",
    defence: "The operator may read no Secret but the issuer's",
    file: operatorRoles,
    find: "resources: [pods]",
    replace: "resources: [pods, secrets]",
    test,
  },
  {
    case: "T52",
    defence: "The operator may not run commands in pods",
    file: operatorRoles,
    find: "resources: [pods]",
    replace: "resources: [pods, pods/exec]",
    test,
  },
  {
    case: "T52",
    defence: "The uninstall hook may delete pods and not change them",
    file: "charts/drover/templates/cleanup.yaml",
    find: "resources: [pods, serviceaccounts]\n    verbs: [list, delete]",
    replace: "resources: [pods, serviceaccounts]\n    verbs: [list, delete, patch]",
    test,
  },
];
