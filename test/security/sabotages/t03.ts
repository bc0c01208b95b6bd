import type { Sabotage } from "../sabotage.ts";

const test = "test/security/t03-split-echo.test.ts";

export const sabotages: readonly Sabotage[] = [
  {
    case: "T03",
    defence: "What may be the beginning of a credential is held back until it is known",
    file: "src/proxy/redaction.ts",
    find: "const keep = startedLength(clean, known);",
    replace: "const keep = 0;",
    test,
  },
  {
    case: "T03",
    defence: "All of what may be a beginning is held back, not only a short end",
    file: "src/proxy/redaction.ts",
    find: "Math.max(0, text.length - longest + 1)",
    replace: "Math.max(0, text.length - 8)",
    test,
  },
  {
    case: "T03",
    defence: "A character is decoded when all of its bytes have come",
    file: "src/proxy/roles/mcp/event-relay.ts",
    find: "decoder.decode(chunk, { stream: true })",
    replace: "decoder.decode(chunk)",
    test,
  },
  {
    case: "T03",
    defence: "An event of an MCP server is searched when all of it has come",
    file: "src/proxy/roles/mcp/answer-relay.ts",
    find: "JSON.stringify(this.#deps.redactor.json(value))",
    replace: "JSON.stringify(value)",
    test,
  },
  {
    case: "T03",
    defence: "A value that was read while a stream runs is looked for in what is still to come",
    file: "src/proxy/redaction.ts",
    find: "    this.#secrets = secrets;\n",
    replace: "    const frozen = secrets();\n    this.#secrets = () => frozen;\n",
    test,
    name: "rotated while the stream runs",
  },
];
