import type { Sabotage } from "../sabotage.ts";

const test = "test/security/t02-echo.test.ts";
const redaction = "src/proxy/redaction.ts";

export const sabotages: readonly Sabotage[] = [
  {
    case: "T02",
    defence: "What an MCP server answers is searched for the credential",
    file: "src/proxy/roles/mcp/answer-relay.ts",
    find: "JSON.stringify(this.#deps.redactor.json(value))",
    replace: "JSON.stringify(value)",
    test,
  },
  {
    case: "T02",
    defence: "Keys of JSON are searched as values are",
    file: redaction,
    find: "setMember(copy, this.#clean(key, known), this.#cleanJson(member, known));",
    replace: "setMember(copy, key, this.#cleanJson(member, known));",
    test,
    name: "as a key",
  },
  {
    case: "T02",
    defence: "Base64 is found at each of its three alignments",
    file: redaction,
    find: "[0, 1, 2].flatMap(",
    replace: "[0].flatMap(",
    test,
    name: "base64 after",
  },
  {
    case: "T02",
    defence: "Hex is found",
    file: redaction,
    find: '      bytes.toString("hex"),\n',
    replace: "",
    test,
    name: "as hex \\(",
  },
  {
    case: "T02",
    defence: "Hex in capitals is found",
    file: redaction,
    find: '      bytes.toString("hex").toUpperCase(),\n',
    replace: "",
    test,
    name: "capitals",
  },
  {
    case: "T02",
    defence: "URL-encoding is found",
    file: redaction,
    find: "const percent = encodeURIComponent(value);",
    replace: "const percent = value;",
    test,
    name: "URL-encoded \\(",
  },
  {
    case: "T02",
    defence: "The two parts of a Basic credential are looked for",
    file: "src/proxy/session-credentials.ts",
    find: "return [value, ...[pair, password].filter(",
    replace: "return [value, ...[].filter(",
    test,
    name: "Basic pair",
  },
  {
    case: "T02",
    defence: "What was taken out is in the audit record",
    file: "src/proxy/roles/mcp/target.ts",
    find: "    use.redactions += 1;\n",
    replace: "",
    test,
    name: "gives back nothing",
  },
];
