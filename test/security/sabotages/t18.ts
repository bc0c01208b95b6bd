import type { Sabotage } from "../sabotage.ts";

const test = "test/security/t18-git-hosts.test.ts";

export const sabotages: readonly Sabotage[] = [
  {
    case: "T18",
    defence: "The edge follows no redirect",
    file: "src/proxy/roles/git/upstream.ts",
    find: "dispatcher: agent,",
    replace:
      'dispatcher: agent.compose((await import("undici")).interceptors.redirect({ maxRedirections: 3 })),',
    test,
    name: "redirect",
  },
  {
    case: "T18",
    defence: "An answer that is not of git's smart HTTP is not passed on",
    file: "src/proxy/roles/git/upstream.ts",
    find: 'if (oneHeader(answer.headers, "content-type") !== answerType(ask.route)) {',
    replace: "if (answer.statusCode !== 200) {",
    test,
    name: "dumb protocol",
  },
  {
    case: "T18",
    defence: "Git shows the sandbox token to the edge alone",
    file: "src/sandbox/git-config.ts",
    find: "`[http ${edge}]\\n",
    replace: "`[http]\\n",
    test,
    name: "submodules",
  },
  {
    case: "T18",
    defence: "No header of the host is passed on",
    file: "src/proxy/roles/git/role.ts",
    find: "exchange.start(200, headersOf(route));\n      for await",
    replace:
      "exchange.start(200, { ...(answer.headers as Record<string, string>), ...headersOf(route) });\n      for await",
    test,
    name: "headers of the host",
  },
];
