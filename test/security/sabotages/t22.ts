import type { Sabotage } from "../sabotage.ts";

const test = "test/security/t22-header-injection.test.ts";
const headers = "src/proxy/roles/mcp/request-headers.ts";

export const sabotages: readonly Sabotage[] = [
  {
    case: "T22",
    defence: "A name that a header cannot hold is encoded",
    file: headers,
    find: '{ "mcp-name": encodeFieldValue(name) }',
    replace: '{ "mcp-name": name }',
    test,
    name: "tool's name",
  },
  {
    case: "T22",
    defence: "A parameter is repeated only when a header can hold it",
    file: headers,
    find: "if (/^[\\x20-\\x7e]*$/.test(value)) headers[header] = value;",
    replace: "headers[header] = value;",
    test,
    name: "holds no parameter",
  },
  {
    case: "T22",
    defence: "A credential of other than visible characters is not used",
    file: "src/credentials/credential-value.ts",
    find: "if (!/^[\\x21-\\x7e]+(?: [\\x21-\\x7e]+)*$/.test(text)) {",
    replace: "if (text === 'never') {",
    test,
    name: "holds no credential",
  },
  {
    case: "T22",
    defence: "A credential is not sent in a header that frames the request",
    file: "src/proxy/session-credentials.ts",
    find: 'if (RESERVED_HEADERS.has(header) || header.startsWith("mcp-")) {',
    replace: 'if (header === "never") {',
    test,
    name: "as its value",
  },
  {
    case: "T22",
    defence: "HTTP is read strictly",
    file: "src/proxy/http-server.ts",
    find: "insecureHTTPParser: false",
    replace: "insecureHTTPParser: true",
    test,
    name: "holds no parameter|is not made for",
  },
];
