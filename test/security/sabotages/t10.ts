import type { Sabotage } from "../sabotage.ts";

const test = "test/security/t10-host-confusion.test.ts";
const file = "src/proxy/url-match.ts";

export const sabotages: readonly Sabotage[] = [
  {
    case: "T10",
    defence: "An entry is for one port",
    file,
    find: "    a.port === b.port &&\n",
    replace: "",
    test,
  },
  {
    case: "T10",
    defence: "Hosts are compared as a whole, not by their ends",
    file,
    find: "    a.host === b.host &&\n",
    replace: "    (a.host.endsWith(b.host) || a.host.startsWith(b.host)) &&\n",
    test,
    name: "however it is written",
  },
  {
    case: "T10",
    defence: "Control characters, spaces and backslashes are refused: parsers drop or turn them",
    file,
    find: "if (!/^[\\u0021-\\u005b\\u005d-\\u007e\\u0080-\\uffff]+$/.test(text)) {",
    replace: "if (text === '') {",
    test,
  },
  {
    case: "T10",
    defence: "A user part is refused, an empty one too",
    file,
    find: 'if (/^[a-z]+:\\/\\/[^/?#]*@/i.test(text)) throw refuse("has a user part");',
    replace: "",
    test,
  },
  {
    case: "T10",
    defence: "A user part is refused in whatever way it is written",
    file,
    find: 'if (url.username !== "" || url.password !== "") throw refuse("has a user part");',
    replace: "",
    test,
    name: "https:user:pass",
  },
  {
    case: "T10",
    defence: "The Host of a request is the loopback address and port, compared as a whole",
    file: "src/proxy/server.ts",
    find: 'if (!authorities.has(exchange.header("host") ?? "")) {',
    replace: 'if (![...authorities].some((each) => exchange.header("host")?.includes(each))) {',
    test,
    name: "proxy's own host",
  },
  {
    case: "T10",
    defence: "A route is an exact path: a whole URL is none",
    file: "src/proxy/exchange.ts",
    find: '(request.url ?? "").split("?")',
    replace: '(request.url ?? "").replace(/^http:\\/\\/[^/]*/, "").split("?")',
    test,
    name: "whole URL",
  },
];
