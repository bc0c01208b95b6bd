import type { Sabotage } from "../sabotage.ts";

const test = "test/security/t14-inside-the-sandbox.test.ts";

export const sabotages: readonly Sabotage[] = [
  {
    case: "T14",
    defence: "Commands inherit nothing of the daemon's environment",
    file: "src/sandbox/tools/tools.ts",
    find: "[PROCESS_MARKER]: config.sandboxId,",
    replace: "...process.env, [PROCESS_MARKER]: config.sandboxId,",
    test,
  },
  {
    case: "T14",
    defence: "Git is given its token by a file, not by its arguments",
    file: "src/sandbox/git-clone.ts",
    find: '["clone", ...args]',
    replace:
      '["-c", `http.extraHeader=X-Token: ${options.request.sandboxToken}`, "clone", ...args]',
    test,
  },
  {
    case: "T14",
    defence: "The file with the token is for its owner alone",
    file: "src/sandbox/repositories.ts",
    find: "{ mode: 0o600 }",
    replace: "{ mode: 0o644 }",
    test,
  },
  {
    case: "T14",
    defence: "Commands do not get the descriptors by which the daemon leads its shell",
    file: "src/sandbox/tools/shell.ts",
    find: "2>&1 198>&- 199<&-",
    replace: "2>&1",
    test,
  },
];
