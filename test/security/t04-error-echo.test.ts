import type { ServerResponse } from "node:http";
import { brotliCompressSync, gzipSync } from "node:zlib";
import { afterEach, describe, expect, it } from "@jest/globals";
import { AnthropicModel } from "../../src/harness/anthropic-model.ts";
import { systemClock } from "../../src/runtime/clock.ts";
import { Cleanups } from "../cleanups.ts";
import { eventually } from "../eventually.ts";
import { startUpstream } from "../integration/proxy/rig.ts";
import { call, sessionWithServer } from "../integration/proxy/session-with-server.ts";
import { ProxySweep } from "./proxy-sweep.ts";
import { newMarker } from "./sweeper.ts";

/**
 * T04: the credential comes back where errors are told: in the body of a 401 or 500, in headers, in
 * the status line, after the body, in a compressed body that was not asked for, in an answer that is
 * no message. Precedent: a secret reflected in an error body and stored (Infisical/agent-vault#258).
 */
const cleanups = new Cleanups();
afterEach(async () => await cleanups.run());

type Answer = (response: ServerResponse, secret: string) => void;

const body = (secret: string) =>
  JSON.stringify({ jsonrpc: "2.0", id: 1, error: { code: -32_000, message: `not ${secret}` } });
const json = { "content-type": "application/json" };

const escaped = (text: string) =>
  Array.from(text, (char) => `\\u${char.charCodeAt(0).toString(16).padStart(4, "0")}`).join("");

function packed(response: ServerResponse, secret: string, encodings: string[], status = 200): void {
  if (encodings.length > 0) response.setHeader("content-encoding", encodings);
  response.writeHead(status, json).end(gzipSync(body(secret)));
}

/** By hand: the server's library says `Transfer-Encoding` itself. */
function packedOnTheWay(response: ServerResponse, secret: string): void {
  const bytes = gzipSync(body(secret));
  const head = [
    "HTTP/1.1 200 OK",
    "Content-Type: application/json",
    "Transfer-Encoding: gzip, chunked",
    "",
    `${bytes.length.toString(16)}\r\n`,
  ];
  response.socket?.end(
    Buffer.concat([Buffer.from(head.join("\r\n")), bytes, Buffer.from("\r\n0\r\n\r\n")]),
  );
}

const answered = JSON.stringify({ jsonrpc: "2.0", id: 1, result: { content: [] } });

const answers: readonly (readonly [string, Answer])[] = [
  ...[400, 401, 403, 404, 429, 500, 503].map((status): [string, Answer] => [
    `the body of a ${status}`,
    (response, secret) => response.writeHead(status, json).end(body(secret)),
  ]),
  [
    "the body of a 500 in HTML",
    (response, secret) =>
      response.writeHead(500, { "content-type": "text/html" }).end(`<${secret}>`),
  ],
  [
    "the body of a 404 in HTML",
    (response, secret) =>
      response.writeHead(404, { "content-type": "text/html" }).end(`<${secret}>`),
  ],
  [
    "headers",
    (response, secret) =>
      response
        .writeHead(401, {
          ...json,
          "www-authenticate": `Bearer error="${secret}"`,
          "request-id": secret,
          "retry-after": secret,
          "x-debug": secret,
          "mcp-session-id": secret,
          "set-cookie": secret,
        })
        .end("{}"),
  ],
  [
    "headers of an answer that is well",
    (response, secret) =>
      response
        .writeHead(200, { ...json, "request-id": secret, "mcp-session-id": secret, "x-a": secret })
        .end('{"jsonrpc":"2.0","id":1,"result":{"content":[]}}'),
  ],
  ["the status line", (response, secret) => response.writeHead(401, secret, json).end("{}")],
  [
    "trailers",
    (response, secret) => {
      response.writeHead(200, { ...json, trailer: "x-debug" });
      response.write('{"jsonrpc":"2.0","id":1,"result":{"content":[]}}');
      response.addTrailers({ "x-debug": secret });
      response.end();
    },
  ],
  [
    "a body packed with gzip",
    (response, secret) =>
      response.writeHead(200, { ...json, "content-encoding": "gzip" }).end(gzipSync(body(secret))),
  ],
  [
    "a body packed with brotli",
    (response, secret) =>
      response
        .writeHead(200, { ...json, "content-encoding": "br" })
        .end(brotliCompressSync(body(secret))),
  ],
  [
    "a packed body that is first said to be plain",
    (response, secret) => packed(response, secret, ["identity", "gzip"]),
  ],
  ["a packed body that is not said to be", (response, secret) => packed(response, secret, [])],
  [
    "an error that is packed and not said to be",
    (response, secret) => packed(response, secret, [], 401),
  ],
  ["a body packed on the way", (response, secret) => packedOnTheWay(response, secret)],
  [
    "a body in UTF-16",
    (response, secret) =>
      response
        .writeHead(200, { "content-type": "application/json; charset=utf-16" })
        .end(Buffer.from(body(secret), "utf16le")),
  ],
  [
    "a body in UTF-16 that is not said to be",
    (response, secret) => response.writeHead(400, json).end(Buffer.from(body(secret), "utf16le")),
  ],
  [
    "an error with the escapes of JSON",
    (response, secret) => response.writeHead(401, json).end(body(secret).replace(secret, escaped)),
  ],
  ["no message", (response, secret) => response.writeHead(200, json).end(`"${secret}"`)],
  [
    "another type of body",
    (response, secret) => response.writeHead(200, { "content-type": "text/plain" }).end(secret),
  ],
  [
    "the target of a redirect",
    (response, secret) => response.writeHead(302, { location: `http://x.invalid/${secret}` }).end(),
  ],
];

describe("a credential in an error", () => {
  it.each(answers)("is taken out of %s of an MCP server", async (_name, answer) => {
    const secret = newMarker("T04");
    const { rig, upstream } = await sessionWithServer(cleanups, secret, (_received, response) =>
      answer(response, secret),
    );
    const sweep = new ProxySweep(rig, [secret]);

    await sweep.answer(await rig.post("/mcp/docs", call("echo")));
    await sweep.answer(await rig.post("/mcp/docs", { jsonrpc: "2.0", id: 1, method: "ping" }));
    await eventually("the audit records", () => rig.auditLines.length === 2);

    expect(upstream.received[0]?.headers.authorization).toBe(`Bearer ${secret}`);
    expect(await sweep.found()).toEqual([]);
  });

  it.each(answers)("is taken out of %s of the model", async (_name, answer) => {
    const secret = newMarker("T04");
    const model = await startUpstream(cleanups, (_received, response) => answer(response, secret));
    const { rig } = await sessionWithServer(cleanups, secret, undefined, {
      modelBaseUrl: model.url,
      modelApiKey: secret,
    });
    const sweep = new ProxySweep(rig, [secret]);

    await sweep.answer(await rig.post("/model/v1/messages", {}));
    await eventually("the audit record", () => rig.auditLines.length === 1);

    expect(model.received[0]?.headers["x-api-key"]).toBe(secret);
    expect(await sweep.found()).toEqual([]);
  });

  it("is not in the error that the harness makes of a refusal, however it is escaped", async () => {
    const secret = newMarker("T04");
    const model = await startUpstream(cleanups, (_received, response) => {
      const error = { type: "authentication_error", message: "invalid key KEY" };
      const text = JSON.stringify({ type: "error", error }).replace("KEY", escaped(secret));
      response.writeHead(401, json).end(text);
    });
    const { rig } = await sessionWithServer(cleanups, secret, undefined, {
      modelBaseUrl: model.url,
      modelApiKey: secret,
    });
    const harness = new AnthropicModel({ baseUrl: `${rig.url}/model`, clock: systemClock, fetch });
    const request = {
      model: "m",
      maxTokens: 10,
      system: undefined,
      tools: [],
      messages: [{ role: "user" as const, content: [{ type: "text" as const, text: "hi" }] }],
    };
    const turn = {
      sessionToken: await rig.token(),
      signal: new AbortController().signal,
      onText: () => {},
    };

    const told = await harness.stream(request, turn).then(String, String);

    expect(model.received[0]?.headers["x-api-key"]).toBe(secret);
    expect(told).toContain("invalid key [redacted:model-key]");
  });

  it.each([
    ["packed twice over", { "content-encoding": ["identity", "identity"] }, /content-encoding/],
    ["of an unknown packing", { "content-encoding": "exi" }, /compressed/],
    ["in another charset", { "content-type": "application/json; charset=ISO-8859-1" }, /charset/],
    ["of two types", { "content-type": ["application/json", "text/html"] }, /content-type/],
    ["of bytes that are no text", {}, /not UTF-8|neither JSON nor events/, Buffer.from([0xe9])],
    ["of zeros", {}, /not text|neither JSON nor events/, Buffer.from("a\0")],
  ] as const)(
    "cannot be hidden in an answer %s",
    async (_name, headers, reason, bytes = Buffer.from(answered)) => {
      const secret = newMarker("T04");
      const answer = (response: ServerResponse) => {
        for (const [name, value] of Object.entries(headers)) response.setHeader(name, value);
        response.end(bytes);
      };
      const model = await startUpstream(cleanups, (_received, response) => answer(response));
      const { rig } = await sessionWithServer(
        cleanups,
        secret,
        (_received, response) => answer(response),
        { modelBaseUrl: model.url, modelApiKey: secret },
      );

      for (const path of ["/mcp/docs", "/model/v1/messages"]) {
        const refused = await rig.post(path, call("echo"));

        expect(refused.status).toBe(502);
        expect(await refused.json()).toMatchObject({
          error: { code: "UPSTREAM_REFUSED", message: expect.stringMatching(reason) },
        });
      }
    },
  );

  it("is not looked for in headers that nobody needs: they are not passed on", async () => {
    const secret = newMarker("T04");
    const model = await startUpstream(cleanups, (_received, response) => {
      response.writeHead(401, { "www-authenticate": secret, "set-cookie": "a=b", "x-debug": "1" });
      response.end("{}");
    });
    const { rig } = await sessionWithServer(cleanups, secret, undefined, {
      modelBaseUrl: model.url,
      modelApiKey: secret,
    });

    const { headers } = await rig.post("/model/v1/messages", {});

    expect(model.received[0]?.headers["x-api-key"]).toBe(secret);
    for (const name of ["www-authenticate", "set-cookie", "x-debug"]) {
      expect(headers.get(name)).toBeNull();
    }
  });
});
