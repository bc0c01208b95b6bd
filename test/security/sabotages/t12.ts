import type { Sabotage } from "../sabotage.ts";

const test = "test/security/t12-foreign-credential.test.ts";

export const sabotages: readonly Sabotage[] = [
  {
    case: "T12",
    defence: "A request with a credential of its own is refused, not only stripped",
    file: "src/proxy/roles/model/upstream.ts",
    find: "    checkForeignCredentials(exchange.headers, exchange.query);\n",
    replace: "",
    test,
  },
  {
    case: "T12",
    defence: "Cookies and keys of other kinds are credentials too",
    file: "src/proxy/foreign-credentials.ts",
    find: '  "cookie",\n',
    replace: "",
    test,
    name: "cookie",
  },
  {
    case: "T12",
    defence: "The query is looked at",
    file: "src/proxy/foreign-credentials.ts",
    find: 'query.split(/[&;]/).some(isCredential) ? "the query" : undefined',
    replace: 'isCredential("") ? query : undefined',
    test,
    name: "in its query",
  },
  {
    case: "T12",
    defence: "Only messages and the counting of tokens are served",
    file: "src/proxy/roles/model/policy.ts",
    find: '"/model/v1/messages": "/v1/messages",',
    replace: '"/model/v1/messages": "/v1/messages", "/model/v1/files": "/v1/files",',
    test,
    name: "stored files",
  },
  {
    case: "T12",
    defence: "What is no session token opens nothing",
    file: "src/proxy/token.ts",
    find: "/^Bearer ([\\w.-]{1,4096})$/",
    replace: "/^Bearer ([\\w.-]{1,4096})/",
    test,
    name: "behind the session token",
  },
];
