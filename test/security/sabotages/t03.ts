import type { Sabotage } from "../sabotage.ts";

const test = "test/security/t03-split-echo.test.ts";

export const sabotages: readonly Sabotage[] = [
  {
    case: "T03",
    defence: "What may be the beginning of a credential is held back until it is known",
    file: "src/proxy/redaction.ts",
    find: "const upTo = Math.max(covered, openFrom);",
    replace: "const upTo = text.length;",
    test,
  },
  {
    case: "T03",
    defence: "All of what may be a beginning is held back, not only a short end",
    file: "src/proxy/value-search.ts",
    find: "this.#openFrom = Math.min(this.#openFrom, this.#startOf(node, end));",
    replace: "this.#openFrom = Math.max(end - 8, this.#startOf(node, end));",
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
    defence: "The pieces of a text that a model streams are searched as one text",
    file: "src/proxy/roles/model/split-deltas.ts",
    find: "[name]: block.pieces.push(text)",
    replace: "[name]: this.#redactor.text(text)",
    test,
    name: "deltas of a text",
  },
  {
    case: "T03",
    defence: "An escape that is cut is held back until it is known",
    file: "src/proxy/value-search.ts",
    find: "if (escape === CUT_ESCAPE) this.#keepCut(at);",
    replace: "",
    test,
    name: "deltas of a text",
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
