import type { ServerResponse } from "node:http";
import { brotliCompressSync, gzipSync } from "node:zlib";
import { afterEach, describe, expect, it } from "@jest/globals";
import { Cleanups, eventually, startUpstream } from "../integration/proxy/rig.ts";
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
