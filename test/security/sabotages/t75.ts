import type { Sabotage } from "../sabotage.ts";

const test = "test/security/t75-costly-answers.test.ts";

export const sabotages: readonly Sabotage[] = [
  {
    case: "T75",
    defence: "Values and keys of JSON are counted before anything is built of them",
    file: "src/proxy/json-text.ts",
    find: "if (values > maxValues)",
    replace: "if (values < 0)",
    test,
    name: "costs no more",
  },
  {
    case: "T75",
    defence: "What all bodies together take is bounded",
    file: "src/proxy/memory-budget.ts",
    find: "if (this.#total + more > maxBytes)",
    replace: "if (this.#total < 0)",
    test,
    name: "of several sessions",
  },
  {
    case: "T75",
    defence: "One session cannot take all the room that there is",
    file: "src/proxy/limits.ts",
    find: "sessionShare: 0.5",
    replace: "sessionShare: 1",
    test,
    name: "of one session",
  },
  {
    case: "T75",
    defence: "A page of a server's tools has a limit of its own",
    file: "src/proxy/roles/mcp/upstream.ts",
    find: "const limit = isList ? SIZES.toolsAnswer : SIZES.jsonAnswer;",
    replace: "const limit = isList ? SIZES.jsonAnswer : SIZES.jsonAnswer;",
    test,
    name: "list of tools",
  },
];
