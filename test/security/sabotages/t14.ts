import type { Sabotage } from "../sabotage.ts";

const test = "test/security/t14-inside-the-sandbox.test.ts";
const takeover = "test/security/t14-takeover.test.ts";
const users = "test/security/t14-two-users.test.ts";

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
    find: 'stdio: "ignore",',
    replace: 'stdio: ["ignore", "ignore", "ignore", fd],',
    test,
  },
  {
    case: "T14",
    defence: "A debugger that the environment asked for is closed",
    file: "src/runtime/debugger.ts",
    find: "if (url() !== undefined) close();",
    replace: "url();",
    test: takeover,
    name: "is not kept open",
  },
  {
    case: "T14",
    defence: "Our images start Node without its debugger",
    file: "Dockerfile.sandbox",
    find: '"/opt/drover/bin/node", "--disable-sigusr1",',
    replace: '"/opt/drover/bin/node",',
    test: takeover,
    name: "before the first line of ours",
  },
  {
    case: "T14",
    defence: "Output of a command is read in time that grows with its length only",
    file: "src/sandbox/output.ts",
    find: 'while (plain[end - 1] === "\\n") end -= 1;',
    replace: "end = plain.replace(/\\n+$/, '').length;",
    test: takeover,
    name: "empty lines",
  },
  {
    case: "T14",
    defence: "The daemon is another user than the tools",
    file: "src/operator/sandbox/pod.ts",
    find: "DAEMON_UID = 10_005",
    replace: "DAEMON_UID = 10_001",
    test: users,
    name: "sends no",
  },
  {
    case: "T14",
    defence: "Nobody but root may read the programs that run daemon and runner",
    file: "Dockerfile.sandbox",
    find: 'install -m 0711 "$(readlink -f "$(command -v node)")"',
    replace: 'install -m 0755 "$(readlink -f "$(command -v node)")"',
    test: takeover,
    name: "only root may read",
  },
];
