import type { Sabotage } from "../sabotage.ts";

export const sabotages: readonly Sabotage[] = [
  {
    case: "T67",
    defence: "An entry of a CredentialVault keeps its destination and its place",
    file: "crds/credentialvaults.drover.dev.yaml",
    find: "has(self.mcpServerUrl) == has(oldSelf.mcpServerUrl) && (!has(self.mcpServerUrl) || self.mcpServerUrl == oldSelf.mcpServerUrl)",
    replace: "true || self == oldSelf",
    test: "test/security/t67-vault-retarget.test.ts",
    name: "the server",
  },
  {
    case: "T67",
    defence: "The right to write vaults is not part of the role edit",
    file: "charts/drover/templates/cluster-roles.yaml",
    find: "resources: [agents, agentsessions, sandboxtemplates]",
    replace: "resources: [agents, agentsessions, sandboxtemplates, credentialvaults]",
    test: "test/security/api/t67-vault-retarget.test.ts",
    name: "may not write vaults",
  },
];
