import type { Sabotage } from "../sabotage.ts";

const test = "test/security/t37-ended-under-way.test.ts";

export const sabotages: readonly Sabotage[] = [
  {
    case: "T37",
    defence:
      "A transfer of git is held against its session and its binding for as long as it lasts",
    file: "src/proxy/roles/git/role.ts",
    find: "confirm: async () => await tokens.confirm(visit.caller.claims),",
    replace: "confirm: async () => {},",
    test,
    name: "began before the session was terminated",
  },
  {
    case: "T37",
    defence: "A transfer of git is held against its credential",
    file: "src/proxy/roles/git/role.ts",
    find: "checkCredential: async () => void (await this.#credentialOf(visit)),",
    replace: "checkCredential: async () => {},",
    test,
    name: "credential was taken away",
  },
  {
    case: "T37",
    defence: "A model's answer is held against the lease for as long as it streams",
    file: "src/proxy/roles/model/upstream.ts",
    find: "const until = AbortSignal.any([exchange.signal, ended]);",
    replace: "const until = AbortSignal.any([exchange.signal]);",
    test,
    name: "ends on both sides once its session was terminated",
  },
];
