import type { Sabotage } from "../sabotage.ts";

const test = "test/security/t17-git-paths.test.ts";

export const sabotages: readonly Sabotage[] = [
  {
    case: "T17",
    defence: "A name that is no repository of the session is refused",
    file: "src/proxy/roles/git/role.ts",
    find: "snapshot.repositories.find(({ name }) => name === route.repository);",
    replace: "snapshot.repositories[0];",
    test,
  },
  {
    case: "T17",
    defence: "A path is compared as it came, without being tidied up",
    file: "src/proxy/edge/server.ts",
    find: "gitRouteOf(exchange.method, exchange.path, exchange.query)",
    replace:
      'gitRouteOf(exchange.method, new URL(exchange.path, "http://edge").pathname, exchange.query)',
    test,
  },
  {
    case: "T17",
    defence: "Nothing may stand before or behind a route",
    file: "src/proxy/roles/git/routes.ts",
    find: "/^\\/git\\/(?<name>",
    replace: "/\\/git\\/(?<name>",
    test,
  },
  {
    case: "T17",
    defence: "The service is the one parameter, and is there once",
    file: "src/proxy/roles/git/routes.ts",
    find: "/^service=(git-upload-pack|git-receive-pack)$/",
    replace: "/service=(git-upload-pack|git-receive-pack)/",
    test,
  },
  {
    case: "T17",
    defence: "Each route has one method",
    file: "src/proxy/roles/git/routes.ts",
    find: 'if (method === "GET" && service !== undefined)',
    replace: "if (service !== undefined)",
    test,
  },
  {
    case: "T17",
    defence: "Capabilities are words with one space between them",
    file: "src/proxy/roles/git/receive-pack.ts",
    find: "if (!words.every((word) => /^[\\x21-\\x7e]+$/.test(word))) {",
    replace: "if (text.length > 1000) {",
    test,
    name: "in the value of another",
  },
  {
    case: "T17",
    defence: "What a client may ask of a host besides its refs is listed",
    file: "src/proxy/roles/git/ref-policy.ts",
    find: "find((name) => !CAPABILITIES.has(name))",
    replace: "find((name) => name.length > 100)",
    test,
    name: "unknown word",
  },
];
