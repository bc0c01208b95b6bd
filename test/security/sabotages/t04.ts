import type { Sabotage } from "../sabotage.ts";

const test = "test/security/t04-error-echo.test.ts";

export const sabotages: readonly Sabotage[] = [
  {
    case: "T04",
    defence: "The body of an MCP server's error is searched",
    file: "src/proxy/roles/mcp/upstream.ts",
    find: "redactor.json(errorBodyOf(text, what, answer))",
    replace: "errorBodyOf(text, what, answer)",
    test,
  },
  {
    case: "T04",
    defence: "The body of the model's answer is searched, errors too",
    file: "src/proxy/roles/model/upstream.ts",
    find: "await exchange.write(stream.push(chunk), until);",
    replace: "await exchange.write(chunk, until);",
    test,
  },
  {
    case: "T04",
    defence: "Headers of the model that are passed on are searched",
    file: "src/proxy/roles/model/upstream.ts",
    find: "passed[name] = redactor.text(value);",
    replace: "passed[name] = value;",
    test,
  },
  {
    case: "T04",
    defence: "Only listed headers of the model are passed on",
    file: "src/proxy/roles/model/policy.ts",
    find: 'return RESPONSE_HEADERS.includes(name) || name.startsWith("anthropic-ratelimit-");',
    replace: "return !/^(content-length|transfer-encoding|connection|trailer)$/.test(name);",
    test,
    name: "headers that nobody needs",
  },
  {
    case: "T04",
    defence: "A compressed answer is refused: it could not be searched",
    file: "src/proxy/upstream-errors.ts",
    find: 'if (encoding === undefined || encoding === "identity") return;',
    replace: 'if (encoding !== "none") return;',
    test,
    name: "packed",
  },
  {
    case: "T04",
    defence: "The session id of an MCP server is sealed",
    file: "src/proxy/roles/mcp/upstream.ts",
    find: 'this.#deps.sealedIds.seal({ ...target.owner, what: "session" }, sessionId)',
    replace: "sessionId",
    test,
    name: "headers of an answer",
  },
  {
    case: "T04",
    defence: "The target of a redirect is not told",
    file: "src/proxy/upstream-errors.ts",
    find: "answered a redirect (${statusCode}), which is not followed",
    replace: "answered a redirect to ${oneHeader(headers, 'location')}",
    test,
    name: "redirect",
  },
];
