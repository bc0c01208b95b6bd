import type { Sabotage } from "../sabotage.ts";

const test = "test/security/t66-hostile-server.test.ts";
const wire = "src/harness/mcp-wire.ts";
const tools = "src/harness/mcp-tools.ts";

export const sabotages: readonly Sabotage[] = [
  {
    case: "T66",
    defence: "A foreign pattern is compiled and never run",
    file: "src/harness/tool-schema.ts",
    find: 'return new RegExp(value, "u").source !== "";',
    replace: 'return !new RegExp(value, "u").test(`${"a".repeat(40)}!`);',
    test,
    name: "no pattern",
  },
  {
    case: "T66",
    defence: "The list of a server's tools has an end",
    file: tools,
    find: "if (this.#read <= readChars && this.#tools.length < tools) return true;",
    replace: "if (this.#read >= 0) return true;",
    test,
    name: "list read up to an end",
  },
  {
    case: "T66",
    defence: "A tool's description is cut",
    file: tools,
    find: 'headAndTail(told.join("\\n\\n"), LIST_LIMITS.descriptionChars)',
    replace: 'headAndTail(told.join("\\n\\n"), Number.MAX_SAFE_INTEGER)',
    test,
    name: "long descriptions cut",
  },
  {
    case: "T66",
    defence: "One answer of a server has a size",
    file: wire,
    find: "if (size > WIRE_LIMITS.messageBytes) {",
    replace: "if (size < 0) {",
    test,
    name: "many megabytes",
  },
  {
    case: "T66",
    defence: "Pings of one stream are counted",
    file: wire,
    find: "if (pings > WIRE_LIMITS.pings)",
    replace: "if (pings < 0)",
    test,
    name: "up to a number",
  },
  {
    case: "T66",
    defence: "One ping is answered at a time",
    file: wire,
    find: "await answerPing(ping).catch(() => {});",
    replace: "answerPing(ping).catch(() => {});",
    test,
    name: "one at a time",
  },
];
