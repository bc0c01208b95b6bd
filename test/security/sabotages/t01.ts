import type { Sabotage } from "../sabotage.ts";

const test = "test/security/t01-fifty-steps.test.ts";

export const sabotages: readonly Sabotage[] = [
  {
    case: "T01",
    defence: "Known values are taken out of what flows back",
    file: "src/proxy/redaction.ts",
    find: "for (const form of encodedForms(value)) ids.set(form, id);",
    replace: "for (const form of encodedForms(value)) ids.set(form.replaceAll(/./g, '~'), id);",
    test,
    name: "no marker is in",
  },
  {
    case: "T01",
    defence: "Headers of the model's answers go through redaction",
    file: "src/proxy/roles/model/upstream.ts",
    find: "passed[name] = redactor.text(value);",
    replace: "passed[name] = value;",
    test,
    name: "no process shows one",
  },
  {
    case: "T01",
    defence: "A server gets the session's credential for it, and nothing that the caller sent",
    file: "src/proxy/roles/mcp/request-headers.ts",
    find: "...credentialHeader(credential),",
    replace: 'authorization: exchange.header("authorization") ?? "",',
    test,
    name: "every upstream got",
  },
  {
    case: "T01",
    defence: "A credential is for the server that its entry names",
    file: "src/proxy/url-match.ts",
    find: "if (url !== undefined && isSameServer(target, url)) {",
    replace: "if (url !== undefined) {",
    test,
    name: "every upstream got",
  },
  {
    case: "T01",
    defence: "A session's own model key is used, not the pool's",
    file: "src/proxy/roles/model/upstream.ts",
    find: "return own ?? (await this.#deps.poolKey.get());",
    replace: "return (await this.#deps.poolKey.get()) ?? own;",
    test,
    name: "every upstream got",
  },
];
