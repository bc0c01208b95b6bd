import type { Sabotage } from "../sabotage.ts";

const test = "test/security/t68-terminal.test.ts";

export const sabotages: readonly Sabotage[] = [
  {
    case: "T68",
    defence: "Each line of a transcript is made visible before it is printed",
    file: "src/cmd/run.ts",
    find: "${visibleLine(line)}\\n",
    replace: "${line}\\n",
    test,
    name: "reaches the terminal",
  },
  {
    case: "T68",
    defence: "Controls of the second set count too",
    file: "src/runtime/visible.ts",
    find: "\\x7f-\\x9f",
    replace: "\\x7f",
    test,
    name: "reaches the terminal",
  },
  {
    case: "T68",
    defence: "Errors are made visible before they are printed",
    file: "src/runtime/process.ts",
    find: "visible(describeError(error))",
    replace: "describeError(error)",
    test,
    name: "somebody else",
  },
];
