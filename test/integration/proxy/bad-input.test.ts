import { once } from "node:events";
import type { ServerResponse } from "node:http";
import { connect } from "node:net";
import { afterEach, describe, expect, it } from "@jest/globals";
import { generateSigningKey, leaseTokenHash, signToken } from "../../../src/protocol/tokens.ts";
import { Cleanups } from "../../cleanups.ts";
import { eventually } from "../../eventually.ts";
import { everythingOf, POD, type Rig, SESSION, startUpstream } from "./rig.ts";
import {
  call,
  result,
  secretsWith,
  sendJson,
  sessionWithServer,
  vaultFor,
} from "./session-with-server.ts";

/** Issue 8, "Bad input": refused with a clear, secret-free error, and counted. */

const TOKEN = "CNRY-bad-input-token-3Wq8Zt";

const cleanups = new Cleanups();
afterEach(async () => await cleanups.run());

const claims = {
  sub: SESSION,
  ten: "team-a",
  tpl: "t",
  ver: "v",
  epoch: 1,
  ltk: leaseTokenHash("lease-1"),
  pod: POD,
};
const life = () => ({ nowMs: Date.now(), lifeSeconds: 600 });

async function counted(rig: Rig, outcome: string, role = "mcp"): Promise<number> {
  const text = await rig.registry.metrics();
  const line = new RegExp(
    `drover_proxy_requests_total\\{role="${role}",[^}]*outcome="${outcome}"\\} (\\d+)`,
  );
  return Number(line.exec(text)?.[1]);
}

async function unserved(rig: Rig, reason: string): Promise<number> {
  const text = await rig.registry.metrics();
  return Number(
    new RegExp(`unserved_requests_total\\{reason="${reason}"\\} (\\d+)`).exec(text)?.[1],
  );
}

function holdsNoSecret(rig: Rig, text: string): void {
  for (const place of [text, ...rig.logLines, ...rig.auditLines])
    expect(place).not.toContain(TOKEN);
}

/** Sends bytes, and gives back all that comes until the other side closes. */
async function raw(rig: Rig, ...pieces: string[]): Promise<string> {
  const socket = connect(rig.port, "127.0.0.1");
  await once(socket, "connect");
  let text = "";
  socket.on("data", (chunk) => {
    text += chunk.toString();
  });
  socket.on("error", () => {});
  for (const piece of pieces) socket.write(piece);
  await once(socket, "close");
  return text;
}

describe("a token that does not fit", () => {
  it.each<[string, (rig: Rig) => Promise<string>]>([
    [
      "for another audience",
      async (rig) => await signToken(rig.key, "drover-sandbox", claims, life()),
    ],
    [
      "that has expired",
      async (rig) =>
        await signToken(rig.key, "drover-proxy", claims, {
          nowMs: Date.now() - 700_000,
          lifeSeconds: 600,
        }),
    ],
    [
      "that is forged",
      async () =>
        await signToken(await generateSigningKey("key-1"), "drover-proxy", claims, life()),
    ],
  ])("%s is 401", async (_name, token) => {
    const { rig, upstream } = await sessionWithServer(cleanups, TOKEN);

    const answer = await rig.post("/mcp/docs", call("echo"), {
      authorization: `Bearer ${await token(rig)}`,
    });

    expect(answer.status).toBe(401);
    const text = await everythingOf(answer);
    expect(text).toContain("UNAUTHENTICATED");
    await eventually("the record", () => rig.auditLines.length === 1);
    expect(await counted(rig, "unauthenticated")).toBe(1);
    expect(upstream.received).toEqual([]);
    holdsNoSecret(rig, text);
  });

  it("of an epoch gone by is 409", async () => {
    const { rig, upstream } = await sessionWithServer(cleanups, TOKEN);
    const old = { authorization: `Bearer ${await rig.token()}` };
    rig.leases.set(SESSION, { token: "lease-2", epoch: 2, owner: POD, terminated: false });

    const answer = await rig.post("/mcp/docs", call("echo"), old);

    expect(answer.status).toBe(409);
    expect(await answer.text()).toContain("is not held under this lease any more");
    expect(await counted(rig, "unauthenticated")).toBe(1);
    expect(upstream.received).toEqual([]);
  });

  it("of another session reaches that session's servers, and nobody else's", async () => {
    const { rig, upstream } = await sessionWithServer(cleanups, TOKEN);
    const snapshot = rig.snapshots.get(SESSION);
    if (snapshot === undefined) throw new Error("the rig has a session");
    const agent = { ...snapshot.agent, mcpServers: [] };
    rig.snapshots.set("sesn_other", { ...snapshot, sessionId: "sesn_other", agent });
    rig.leases.set("sesn_other", { token: "lease-2", epoch: 1, owner: POD, terminated: false });

    const answer = await rig.post("/mcp/docs", call("echo"), {
      authorization: `Bearer ${await rig.token("sesn_other", "lease-2")}`,
    });

    expect(await answer.json()).toMatchObject({
      error: {
        message: 'the session\'s agent has no MCP server "docs"',
        data: { code: "NOT_FOUND" },
      },
    });
    expect(await counted(rig, "refused")).toBe(1);
    expect(upstream.received).toEqual([]);
  });
});

describe("a request that is not one", () => {
  it.each([
    ["two lengths", "Content-Length: 2\r\nContent-Length: 3\r\n", "not_http"],
    ["a null byte in a header", "Mcp-Param-A: a\0b\r\n", "not_http"],
    ["a bare line feed before a header", "Mcp-Param-A: a\nX-Admin: 1\r\n", "not_http"],
    ["a bare return before a header", "Mcp-Param-A: a\rX-Admin: 1\r\n", "not_http"],
    ["headers past 16 KiB", `X-A: ${"b".repeat(20_000)}\r\n`, "headers_too_large"],
  ])("is closed and counted: %s", async (_name, lines, reason) => {
    const { rig, upstream } = await sessionWithServer(cleanups, TOKEN);
    const host = `Host: 127.0.0.1:${rig.port}\r\nAuthorization: Bearer ${await rig.token()}\r\n`;

    const answer = await raw(rig, `POST /mcp/docs HTTP/1.1\r\n${host}${lines}\r\n{}`);

    expect(answer).toMatch(/^HTTP\/1\.1 4(00|31) /);
    expect(await unserved(rig, reason)).toBe(1);
    expect(upstream.received).toEqual([]);
  });

  it("with a line break in a name reaches a modern server encoded, as one header", async () => {
    const { rig, upstream } = await sessionWithServer(cleanups, TOKEN);
    const asked = call("echo\r\nX-Admin: 1");
    const meta = { "io.modelcontextprotocol/protocolVersion": "2026-07-28" };

    await rig.post("/mcp/docs", { ...asked, params: { ...asked.params, _meta: meta } });

    expect(upstream.received[0]?.headers["mcp-name"]).toMatch(/^=\?base64\?[\w+/=]+\?=$/);
    expect(upstream.received[0]?.headers).not.toHaveProperty("x-admin");
  });

  it.each([
    ["a server that is not the agent's", "/mcp/other", call("echo"), 200, "no MCP server"],
    ["a path that leaves", "/mcp/../docs", call("echo"), 404, "no such route"],
    ["no JSON", "/mcp/docs", "{", 400, "it is not JSON"],
    ["no JSON-RPC", "/mcp/docs", { id: 1 }, 400, "not one JSON-RPC"],
    ["a batch", "/mcp/docs", [call("echo")], 400, "not one JSON-RPC"],
    ["a name of the wrong kind", "/mcp/docs", call(1 as never), 200, "needs params.name"],
  ])("is refused: %s", async (_name, path, body, status, message) => {
    const { rig, upstream } = await sessionWithServer(cleanups, TOKEN);

    const answer = await rig.post(path, body);

    expect(answer.status).toBe(status);
    expect(await answer.text()).toContain(message);
    expect((await counted(rig, "refused")) + (await unserved(rig, "no_route"))).toBe(1);
    expect(upstream.received).toEqual([]);
  });

  it("one that comes byte by byte, or stops in its head or body, is given up", async () => {
    const { rig, upstream } = await sessionWithServer(cleanups, TOKEN);
    const head = `POST /mcp/docs HTTP/1.1\r\nHost: 127.0.0.1:${rig.port}\r\n`;
    const full = `${head}Authorization: Bearer ${await rig.token()}\r\nContent-Type: application/json\r\n`;

    const [inHead, inBody] = await Promise.all([
      raw(rig, head),
      raw(rig, `${full}Content-Length: 100\r\n\r\n{"jsonrpc"`),
    ]);

    expect(inHead).toMatch(/^HTTP\/1\.1 408 /);
    expect(await unserved(rig, "late")).toBe(1);
    expect(inBody).toMatch(/^HTTP\/1\.1 504 [\s\S]*nothing more of the request came for 15 s/);
    expect(await counted(rig, "unavailable")).toBe(1);
    expect(upstream.received).toEqual([]);
  }, 40_000);

  it("one too many of a session is answered as its reader expects it, and the next minute is free", async () => {
    const { rig, upstream } = await sessionWithServer(cleanups, TOKEN, undefined, {
      requestsPerMinute: 2,
      modelBaseUrl: "http://127.0.0.1:1",
    });
    await rig.post("/mcp/docs", call("echo"));
    await rig.post("/mcp/docs", call("echo"));

    const tool = await rig.post("/mcp/docs", call("echo", 7));
    const note = await rig.post("/mcp/docs", { jsonrpc: "2.0", method: "notifications/cancelled" });
    const model = await rig.post("/model/v1/messages", {});

    expect(await tool.json()).toMatchObject({
      id: 7,
      error: {
        message: expect.stringContaining("2 requests in a minute"),
        data: { code: "LIMIT_EXCEEDED", limit: 2, retryable: true },
      },
    });
    expect([note.status, model.status]).toEqual([429, 429]);
    expect(upstream.received).toHaveLength(2);
    expect(await counted(rig, "refused")).toBe(2);
    expect(await counted(rig, "refused", "model")).toBe(1);
  });
});

describe("a credential that cannot be used", () => {
  it.each([
    ["is empty", "", "is empty"],
    ["is short", "1234567", "is shorter than 8 bytes"],
    ["has a line break", `${TOKEN}\r\nX-Admin: 1`, "has line breaks"],
    ["has a null byte", `${TOKEN}\0`, "has line breaks or characters"],
  ])("%s: nobody is asked, and the value is not shown", async (_name, value, message) => {
    const { rig, upstream } = await sessionWithServer(cleanups, TOKEN, undefined, {
      secrets: secretsWith(value),
    });

    const text = await everythingOf(await rig.post("/mcp/docs", call("echo")));

    expect(text).toContain("CREDENTIAL_UNAVAILABLE");
    expect(text).toContain(message);
    await eventually("the record", () => rig.auditLines.length === 1);
    expect(await counted(rig, "unavailable")).toBe(1);
    expect(upstream.received).toEqual([]);
    holdsNoSecret(rig, text);
  });
});

describe("an address that must not be dialled", () => {
  it("is not reached by a redirect to the metadata service", async () => {
    const { rig } = await sessionWithServer(cleanups, TOKEN, (_received, response) => {
      response.writeHead(302, { location: "http://169.254.169.254/latest/meta-data/" }).end();
    });

    const text = await everythingOf(await rig.post("/mcp/docs", call("echo")));

    expect(text).toContain("answered a redirect (302), which is not followed");
    expect(text).not.toContain("169.254");
    expect(await counted(rig, "upstream_error")).toBe(1);
    holdsNoSecret(rig, text);
  });

  it("is not reached by a name that leads there", async () => {
    const { upstream } = await sessionWithServer(cleanups, TOKEN);
    const url = `https://localhost:${upstream.port}/mcp`;
    const { rig } = await sessionWithServer(cleanups, TOKEN, undefined, {
      inClusterServers: [],
      agent: {
        mcpServers: [{ name: "docs", url }],
        tools: [
          {
            type: "mcp_toolset",
            mcpServerName: "docs",
            defaultConfig: { permissionPolicy: "always_allow" },
          },
        ],
      },
      vaults: vaultFor(url),
    });

    const text = await everythingOf(await rig.post("/mcp/docs", call("echo")));

    expect(text).toContain("ADDRESS_REFUSED");
    expect(text).not.toContain("127.0.0.1");
    expect(await counted(rig, "refused")).toBe(1);
    expect(upstream.received).toEqual([]);
  });
});

describe("a server that misbehaves", () => {
  const GIGABYTE = 1024 ** 3;
  const MIB = Buffer.alloc(1024 * 1024, "x");

  /** Writes until a gigabyte is out or nobody takes more. */
  async function flood(response: ServerResponse, piece: Buffer, size = GIGABYTE): Promise<void> {
    const gone = new AbortController();
    response.once("close", () => gone.abort());
    for (let sent = 0; sent < size && !gone.signal.aborted; sent += piece.length) {
      if (!response.write(piece)) await once(response, "drain", { signal: gone.signal });
    }
    response.end();
  }

  it.each([
    ["as JSON", "application/json", MIB, /more than 16777216 bytes/],
    ["as one event", "text/event-stream", MIB, /an event of the MCP server is longer/],
    [
      "as many events",
      "text/event-stream",
      Buffer.from(
        `data: ${JSON.stringify({ jsonrpc: "2.0", method: "notifications/progress", params: { message: "x".repeat(500_000) } })}\n\n`,
      ),
      /the stream of the MCP server is longer/,
    ],
  ])("cannot fill the memory with a gigabyte %s", async (_name, type, piece, message) => {
    const { rig, upstream } = await sessionWithServer(cleanups, TOKEN, (_received, response) => {
      response.writeHead(200, { "content-type": type });
      if (piece === MIB && type !== "application/json") response.write("data: ");
      flood(response, piece).catch(() => {});
    });
    const before = process.memoryUsage().rss;

    const answer = await rig.post("/mcp/docs", call("echo"));
    let last = "";
    for await (const chunk of answer.body ?? []) last = (last + Buffer.from(chunk)).slice(-1000);

    expect(last).toMatch(message);
    await eventually("the end of the connection", () => upstream.aborted === 1);
    expect(process.memoryUsage().rss - before).toBeLessThan(400 * 1024 * 1024);
    expect(await counted(rig, "upstream_error")).toBe(1);
  });

  it("passes a long answer of a model through without keeping it", async () => {
    const long = 256 * 1024 * 1024;
    const model = await startUpstream(cleanups, (_received, response) => {
      response.writeHead(200, { "content-type": "text/event-stream" });
      const event = Buffer.concat([Buffer.from("data: "), MIB.subarray(8), Buffer.from("\n\n")]);
      flood(response, event, long).catch(() => {});
    });
    const { rig } = await sessionWithServer(cleanups, TOKEN, undefined, {
      modelBaseUrl: model.url,
      modelApiKey: TOKEN,
    });
    const before = process.memoryUsage().rss;

    const answer = await rig.post("/model/v1/messages", {});
    let size = 0;
    for await (const chunk of answer.body ?? []) size += Buffer.from(chunk).length;

    expect(size).toBe(long);
    expect(process.memoryUsage().rss - before).toBeLessThan(200 * 1024 * 1024);
  });

  it("no longer has a tool it listed: the model reads the server's own words, and it is counted", async () => {
    const offered = [{ name: "gone", description: "", inputSchema: { type: "object" } }];
    const { rig } = await sessionWithServer(cleanups, TOKEN, ({ body }, response) => {
      const isList = body.includes("tools/list");
      const error = { code: -32_602, message: `Unknown tool: gone (${TOKEN})` };
      sendJson(response, {
        jsonrpc: "2.0",
        id: 1,
        ...(isList ? { result: { tools: offered } } : { error }),
      });
    });
    await rig.post("/mcp/docs", { jsonrpc: "2.0", id: 1, method: "tools/list" });

    const text = await (await rig.post("/mcp/docs", call("gone"))).text();

    expect(text).toContain("Unknown tool: gone ([redacted:main/docs])");
    await eventually("the record", () => rig.auditLines.length === 2);
    expect(await counted(rig, "upstream_error")).toBe(1);
    holdsNoSecret(rig, text);
  });

  it("that answers well is counted as such: the control of all the above", async () => {
    const { rig, upstream } = await sessionWithServer(cleanups, TOKEN, (_received, response) =>
      sendJson(response, result(1, "fine")),
    );

    expect(await (await rig.post("/mcp/docs", call("echo"))).text()).toContain("fine");
    await eventually("the record", () => rig.auditLines.length === 1);
    expect(await counted(rig, "ok")).toBe(1);
    expect(upstream.received[0]?.headers.authorization).toBe(`Bearer ${TOKEN}`);
  });
});
