import type { Sabotage } from "../sabotage.ts";

const test = "test/security/t36-vault-outages.test.ts";

export const sabotages: readonly Sabotage[] = [
  {
    case: "T36",
    defence: "Only a read value is sent: an answer of an error, or of something else, is none",
    file: "src/credentials/vault/client.ts",
    find: "if (answer.status !== 200) throw serverProblem(call.what, answer);\n    const parsed",
    replace:
      'if (answer.status !== 200) return { auth: { client_token: "-", lease_duration: 1, renewable: false }, data: { data: { token: "anonymous" }, metadata: { version: 1 } } } as T;\n    const parsed',
    test,
    name: "answers 500|sealed",
  },
  {
    case: "T36",
    defence: "A vault that does not answer is given up after 5 s",
    file: "src/credentials/vault/client.ts",
    find: "const cancel = clock.timer(DEADLINE_MS, () => controller.abort());",
    replace: "const cancel = () => {};",
    test,
    name: "stands still",
  },
  {
    case: "T36",
    defence: "The vault's certificate is checked before anything is sent",
    file: "src/credentials/vault/client.ts",
    find: "connect: { timeout: DEADLINE_MS,",
    replace: "connect: { rejectUnauthorized: false, timeout: DEADLINE_MS,",
    test,
    name: "certificate of somebody else",
  },
  {
    case: "T36",
    defence: "A login that failed is not kept: the next call tries again",
    file: "src/credentials/vault/kept-logins.ts",
    find: "if (this.#kept.get(key) === entry) this.#kept.delete(key);\n      throw error;",
    replace: "throw error;",
    test,
    name: "sealed|killed",
  },
  {
    case: "T36",
    defence: "A token that the vault takes no more is replaced once",
    file: "src/credentials/vault/kept-logins.ts",
    find: "if (!isRefusal(error)) throw error;",
    replace: "throw error;",
    test,
    name: "ends before its time",
  },
  {
    case: "T36",
    defence: "The words of a vault stay out of what the harness is told",
    file: "src/credentials/vault/problems.ts",
    find: "`cannot ${what}: ${reason}`, {\n    // For logs",
    replace: "`cannot ${what}: ${reason} ${text}`, {\n    // For logs",
    test,
    name: "answers 500|neither the credential",
  },
];
