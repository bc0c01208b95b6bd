import type { Sabotage } from "../sabotage.ts";

const test = "test/security/t25-cross-talk.test.ts";

export const sabotages: readonly Sabotage[] = [
  {
    case: "T25",
    defence: "A credential that was read is kept for the session that it was read for",
    file: "src/proxy/session-credentials.ts",
    find: "JSON.stringify([tenant, sessionId])",
    replace: "JSON.stringify([tenant])",
    test,
  },
  {
    case: "T25",
    defence: "A snapshot that was read is kept for its session",
    file: "src/proxy/session-snapshots.ts",
    find: "`${tenant}/${sessionId}`",
    replace: "tenant",
    test,
  },
  {
    case: "T25",
    defence: "A token's claims are kept under a hash of the whole token",
    file: "src/proxy/token.ts",
    find: 'digest("sha256", token, "base64")',
    replace: 'digest("sha256", token.slice(0, 20), "base64")',
    test,
  },
  {
    case: "T25",
    defence: "Each request finds its own target: nothing of an earlier one is used again",
    file: "src/proxy/roles/mcp/upstream.ts",
    find: "const target = await findTarget(this.#deps, exchange, caller, server, message);",
    replace:
      "const target = await (this.kept ??= findTarget(this.#deps, exchange, caller, server, message));",
    test,
  },
];
