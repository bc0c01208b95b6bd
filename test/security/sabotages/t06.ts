import type { Sabotage } from "../sabotage.ts";

const test = "test/security/t06-anothers-path.test.ts";

export const sabotages: readonly Sabotage[] = [
  {
    case: "T06",
    defence:
      "The issuer gives tokens for vaults that the session's frozen snapshot names, and no other",
    file: "src/operator/issuer/decision.ts",
    find: "if (!snapshot.vaults.some(({ name }) => name === vault)) {",
    replace: "if (vault === undefined) {",
    test,
    name: "is refused|gets none for the vault",
  },
  {
    case: "T06",
    defence: "The tenant that the vault is told is that of the session",
    file: "src/operator/issuer/decision.ts",
    find: "return { sub, ten, vlt: vault, vid: `${ten}:${vault}` };",
    replace: 'return { sub, ten: "team-b", vlt: vault, vid: `team-b:${vault}` };',
    test,
    name: "is refused t/team-b/v/main/docs|session's tenant",
  },
  {
    case: "T06",
    defence: "A token for the vault is given only while the session is held by who asks",
    file: "src/operator/issuer/decision.ts",
    find: "if (problem !== undefined) throw refusal(problem.code, problem.message);\n  if (!snapshot.vaults",
    replace: "if (!snapshot.vaults",
    test,
    name: "once the session is over",
  },
  {
    case: "T06",
    defence: "A proxy asks for the folder of the session's own vault (the vault refuses another)",
    file: "src/credentials/vault/vault-source.ts",
    find: "`t/${tenant}/v/${vault}/${path}`",
    replace: "`t/team-b/v/main/${path}`",
    test,
    name: "reads the session's own credential",
  },
];
