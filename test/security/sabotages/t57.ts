import type { Sabotage } from "../sabotage.ts";

const test = "test/security/t57-hostile-daemon.test.ts";

export const sabotages: readonly Sabotage[] = [
  {
    case: "T57",
    defence: "Who says `not yet` is asked less and less often",
    file: "src/protocol/pace.ts",
    find: "if (repetitions > FREE) {",
    replace: "if (repetitions < 0) {",
    test,
  },
  {
    case: "T57",
    defence: "An answer that is not a daemon's is a tool error",
    file: "src/harness/sandbox-hands.ts",
    find: 'if (exchange === "not_understood") {',
    replace: "if (refusals < 0) {",
    test,
  },
  {
    case: "T57",
    defence: "An answer is taken for the call that was asked for only",
    file: "src/protocol/sandbox-client.ts",
    find: "if (response.id !== id) {",
    replace: 'if (id === "") {',
    test,
  },
  {
    case: "T57",
    defence: "A daemon speaks with the codes of a daemon, not of the log",
    file: "src/protocol/sandbox-client.ts",
    find: "DAEMON_CODES.find((known) => known === answer.data.error.code)",
    replace: "(answer.data.error.code as (typeof DAEMON_CODES)[number])",
    test,
  },
  {
    case: "T57",
    defence: "Whether the lease is lost is not for a sandbox to say",
    file: "src/harness/sandbox-hands.ts",
    find: 'case "SANDBOX_STALE_EPOCH":',
    replace: 'case "never":',
    test,
  },
  {
    case: "T57",
    defence: "A daemon's reasons are cut before they are used",
    file: "src/protocol/sandbox-client.ts",
    find: "{ name, state, message: cut(message) }",
    replace: "{ name, state, message }",
    test,
  },
];
