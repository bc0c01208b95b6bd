import type { Sabotage } from "../sabotage.ts";

const test = "test/security/t32-foreign-headers.test.ts";
const headers = "src/proxy/roles/mcp/request-headers.ts";

export const sabotages: readonly Sabotage[] = [
  {
    case: "T32",
    defence: "Headers for an MCP server are made from nothing",
    file: headers,
    find: "    ...modernHeaders(exchange, message),\n",
    replace:
      '    ...modernHeaders(exchange, message),\n    cookie: exchange.header("cookie") ?? "",\n',
    test,
    name: "MCP server",
  },
  {
    case: "T32",
    defence: "Headers for the model are made from nothing",
    file: "src/proxy/roles/model/upstream.ts",
    find: 'accept: exchange.header("accept"),\n    });\n',
    replace:
      'accept: exchange.header("accept"),\n    });\n' +
      '    headers["x-forwarded-for"] = exchange.header("x-forwarded-for") ?? "";\n',
    test,
    name: "the model",
  },
  {
    case: "T32",
    defence: "The session token goes no further than the proxy",
    file: headers,
    find: "    ...modernHeaders(exchange, message),\n",
    replace:
      "    ...modernHeaders(exchange, message),\n" +
      '    "x-session": exchange.header("authorization") ?? "",\n',
    test,
    name: "MCP server",
  },
  {
    case: "T32",
    defence: "An MCP session id is opened before it is passed on",
    file: "src/proxy/roles/mcp/upstream.ts",
    find: 'open("session", exchange.header("mcp-session-id"))',
    replace: 'exchange.header("mcp-session-id")',
    test,
    name: "no MCP session",
  },
  {
    case: "T32",
    defence: "An event id is opened before it is passed on",
    file: "src/proxy/roles/mcp/upstream.ts",
    find: 'open("event", exchange.header("last-event-id"))',
    replace: 'exchange.header("last-event-id")',
    test,
    name: "no MCP session",
  },
];
