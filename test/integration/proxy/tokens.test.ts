import { generateKeyPairSync, type KeyObject, randomUUID } from "node:crypto";
import { request as httpRequest } from "node:http";
import { connect } from "node:net";
import { afterEach, describe, expect, it } from "@jest/globals";
import { SignJWT, UnsecuredJWT } from "jose";
import { generateSigningKey, leaseTokenHash, signToken } from "../../../src/protocol/tokens.ts";
import { Cleanups } from "../../cleanups.ts";
import { POD, Rig, SESSION, startUpstream, TENANT } from "./rig.ts";

const body = { model: "m", max_tokens: 1, messages: [] };
const call = { jsonrpc: "2.0", id: 1, method: "tools/call", params: { name: "echo" } };
const list = { jsonrpc: "2.0", id: 1, method: "tools/list" };

const cleanups = new Cleanups();
afterEach(async () => await cleanups.run());

async function start() {
  const upstream = await startUpstream(cleanups, (_received, response) => {
    response
      .writeHead(200, { "content-type": "application/json" })
      .end('{"jsonrpc":"2.0","id":1,"result":{"tools":[]}}');
  });
  const url = `${upstream.url}/mcp`;
  const rig = await Rig.start(cleanups, {
    modelBaseUrl: upstream.url,
    inClusterServers: [upstream.authority],
    agent: {
      tools: [
        {
          type: "mcp_toolset",
          mcpServerName: "docs",
          defaultConfig: { permissionPolicy: "always_allow" },
        },
      ],
      mcpServers: [{ name: "docs", url }],
    },
    vaults: [
      {
        name: "main",
        uid: "vault-uid",
        entries: [
          {
            name: "docs",
            mcpServerUrl: url,
            secretRef: { name: "docs-token", key: "token" },
            header: "Authorization",
            scheme: "Bearer",
          },
        ],
      },
    ],
    secrets: { [TENANT]: { "docs-token": { token: "CNRY-docs-token" } } },
  });
  return { upstream, rig };
}

const claims = {
  sub: SESSION,
  ten: TENANT,
  ver: "r1",
  epoch: 1,
  ltk: leaseTokenHash("lease-1"),
  pod: POD,
};
const times = () => ({ nowMs: Date.now(), lifeSeconds: 600 });

describe("a session token", () => {
  it("made by the issuer opens the model and MCP routes", async () => {
    const { upstream, rig } = await start();

    expect((await rig.post("/model/v1/messages", body)).status).toBe(200);
    expect((await rig.post("/mcp/docs", call)).status).toBe(200);
    expect(upstream.received).toHaveLength(2);
  });

  it.each<[string, (rig: Rig) => Promise<string>]>([
    ["none", async () => ""],
    ["something else", async () => "Bearer hello"],
    ["another scheme", async (rig) => `Basic ${await rig.token()}`],
    [
      "one without signature (alg none)",
      async () =>
        `Bearer ${new UnsecuredJWT(claims).setIssuer("drover-issuer").setAudience("drover-proxy").setExpirationTime("5m").encode()}`,
    ],
    [
      "one signed by another key of the same name",
      async () =>
        `Bearer ${await signToken(await generateSigningKey("key-1"), "drover-proxy", claims, times())}`,
    ],
    [
      "one signed by an unknown key",
      async () =>
        `Bearer ${await signToken(await generateSigningKey("key-9"), "drover-proxy", claims, times())}`,
    ],
    [
      "one signed with the public key as a shared secret (HS256)",
      async (rig) => `Bearer ${await signedWith(rig, "HS256")}`,
    ],
    [
      "one with another algorithm (ES256)",
      async (rig) => `Bearer ${await signedWith(rig, "ES256")}`,
    ],
    [
      "one for the sandbox",
      async (rig) => `Bearer ${await signToken(rig.key, "drover-sandbox", claims, times())}`,
    ],
    [
      "an expired one",
      async (rig) =>
        `Bearer ${await signToken(rig.key, "drover-proxy", claims, { nowMs: Date.now() - 700_000, lifeSeconds: 600 })}`,
    ],
    [
      "one for another pod",
      async (rig) =>
        `Bearer ${await signToken(rig.key, "drover-proxy", { ...claims, pod: "pod-2" }, times())}`,
    ],
    [
      "one that lacks a claim",
      async (rig) =>
        `Bearer ${await signToken(rig.key, "drover-proxy", { ...claims, ltk: undefined }, times())}`,
    ],
  ])("is needed: 401 for %s", async (_name, authorization) => {
    const { upstream, rig } = await start();
    const headers = { authorization: await authorization(rig) };

    const model = await rig.post("/model/v1/messages", body, headers);
    const mcp = await rig.post("/mcp/docs", call, headers);

    expect([model.status, mcp.status]).toEqual([401, 401]);
    expect(await mcp.json()).toMatchObject({ error: { code: "UNAUTHENTICATED" } });
    expect(upstream.received).toEqual([]);
  });

  it.each([
    ["another worker has claimed", { token: "lease-2", epoch: 2, owner: "pod-2" }, 409],
    ["the epoch alone differs", { token: "lease-1", epoch: 2, owner: POD }, 409],
    ["a failover gave the epoch out again", { token: "lease-x", epoch: 1, owner: POD }, 409],
    ["nobody holds the session", { token: "", epoch: 1, owner: "" }, 409],
    [
      "the session is terminated",
      { token: "lease-1", epoch: 1, owner: POD, terminated: true },
      409,
    ],
  ])("is refused at once for a tool call when %s", async (_name, lease, status) => {
    const { upstream, rig } = await start();
    await rig.post("/mcp/docs", call);

    rig.leases.set(SESSION, { terminated: false, ...lease });
    const answer = await rig.post("/mcp/docs", call);

    expect(answer.status).toBe(status);
    expect(upstream.received).toHaveLength(1);
  });

  it("is refused for lists and the model within 2 s of a take-over", async () => {
    const { upstream, rig } = await start();
    await rig.post("/mcp/docs", list);

    rig.leases.set(SESSION, { token: "lease-2", epoch: 2, owner: "pod-2", terminated: false });
    await new Promise((resolve) => setTimeout(resolve, 2100));
    const listing = await rig.post("/mcp/docs", list);
    const model = await rig.post("/model/v1/messages", body);

    expect([listing.status, model.status]).toEqual([409, 409]);
    expect(upstream.received).toHaveLength(1);
  });

  it("of a worker that has just claimed is not refused because of an older lease in memory", async () => {
    const { rig } = await start();
    await rig.post("/model/v1/messages", body);
    rig.leases.set(SESSION, { token: "lease-2", epoch: 2, owner: POD, terminated: false });

    const answer = await rig.post("/model/v1/messages", body, {
      authorization: `Bearer ${await rig.token(SESSION, "lease-2")}`,
    });

    expect(answer.status).toBe(200);
  });

  it("is checked against the store once in 2 s for the model, and each time for a tool call", async () => {
    const { rig } = await start();
    await rig.post("/model/v1/messages", body);
    const before = rig.leaseReads;

    await rig.post("/model/v1/messages", body);
    expect(rig.leaseReads).toBe(before);
    await rig.post("/mcp/docs", call);
    await rig.post("/mcp/docs", call);
    expect(rig.leaseReads).toBe(before + 2);
  });

  it("goes on reading while the store is away, and calls no tool", async () => {
    const { upstream, rig } = await start();
    await rig.post("/mcp/docs", list);

    rig.storeDown = true;
    await new Promise((resolve) => setTimeout(resolve, 2100));
    const listing = await rig.post("/mcp/docs", list);
    const calling = await rig.post("/mcp/docs", call);

    expect([listing.status, calling.status]).toEqual([200, 503]);
    expect(upstream.received).toHaveLength(2);
  });

  it("never goes upstream", async () => {
    const { upstream, rig } = await start();
    const token = await rig.token();

    await rig.post("/mcp/docs", call);
    await rig.post("/model/v1/messages", body);

    expect(JSON.stringify(upstream.received)).not.toContain(token);
  });
});

async function signedWith(rig: Rig, algorithm: "HS256" | "ES256"): Promise<string> {
  const secret = Buffer.from(JSON.stringify(rig.key.publicJwk));
  const key: KeyObject | Buffer =
    algorithm === "HS256" ? secret : generateKeyPairSync("ec", { namedCurve: "P-256" }).privateKey;
  return await new SignJWT(claims)
    .setProtectedHeader({ alg: algorithm, kid: "key-1", typ: "at+jwt" })
    .setIssuer("drover-issuer")
    .setAudience("drover-proxy")
    .setIssuedAt()
    .setExpirationTime("5m")
    .sign(key);
}

describe("/tokens", () => {
  async function ask(rig: Rig, given: unknown): Promise<Response> {
    return await fetch(`${rig.url}/tokens`, { method: "POST", body: JSON.stringify(given) });
  }

  it("asks the issuer once and then answers from memory", async () => {
    const { rig } = await start();

    const first = await rig.token();
    const reads = rig.leaseReads;
    const second = await rig.token();

    expect(second).toBe(first);
    expect(rig.leaseReads).toBe(reads);
  });

  it("refuses a wrong lease token, also after a good one was asked for", async () => {
    const { rig } = await start();
    await rig.token();

    const answer = await ask(rig, { sessionId: SESSION, tenant: TENANT, leaseToken: "guessed" });

    expect(answer.status).toBe(409);
    expect(await answer.json()).toMatchObject({ error: { code: "SESSION_LEASE_LOST" } });
  });

  it("refuses an execute token for a sandbox that is not bound to the session", async () => {
    const { rig } = await start();

    const answer = await ask(rig, {
      sessionId: SESSION,
      tenant: TENANT,
      leaseToken: "lease-1",
      sandbox: { id: "sbx-9" },
    });

    expect(answer.status).toBe(403);
  });

  it.each(["{", "[]", '{"sessionId":""}', '{"sessionId":"a","sessionId":"b"}'])(
    "answers 400 to %s",
    async (text) => {
      const { rig } = await start();

      const answer = await fetch(`${rig.url}/tokens`, { method: "POST", body: text });

      expect(answer.status).toBe(400);
    },
  );
});

describe("the loopback port", () => {
  it.each([
    ["a rebound name", { host: "evil.example:7070" }],
    ["a name that only begins like ours", { host: "127.0.0.1.evil.example" }],
    ["another port", { host: "127.0.0.1:1" }],
    ["a web page", { origin: "https://evil.example" }],
    ["a web page on loopback", { origin: "http://localhost:3000" }],
    ["an opaque origin", { origin: "null" }],
  ])("refuses %s before looking at its token", async (_name, headers) => {
    const { upstream, rig } = await start();
    const token = await rig.token();

    const status = await new Promise((resolve, reject) => {
      const outgoing = httpRequest({
        host: "127.0.0.1",
        port: rig.port,
        path: "/mcp/docs",
        method: "POST",
        headers: {
          authorization: `Bearer ${token}`,
          "content-type": "application/json",
          ...headers,
        },
      });
      outgoing.once("response", (response) => {
        response.resume();
        resolve(response.statusCode);
      });
      outgoing.once("error", reject);
      outgoing.end(JSON.stringify(call));
    });

    expect(status).toBe(403);
    expect(upstream.received).toEqual([]);
  });

  it.each([
    ["two lengths", "Content-Length: 2\r\nContent-Length: 3\r\n"],
    ["length and chunks", "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n"],
    ["an odd transfer coding", "Transfer-Encoding: xchunked\r\n"],
    ["a folded header", "X-A: b\r\n c\r\n"],
    ["a bare line feed", "X-A: b\nX-B: c\r\n"],
    ["no Host", undefined],
    ["headers of 20 KiB", `X-A: ${"b".repeat(20_000)}\r\n`],
  ])("closes on %s", async (_name, lines) => {
    const { upstream, rig } = await start();
    const token = await rig.token();
    const host = lines === undefined ? "" : `Host: 127.0.0.1:${rig.port}\r\n`;
    const head = `POST /model/v1/messages HTTP/1.1\r\n${host}Authorization: Bearer ${token}\r\n${lines ?? ""}\r\n{}`;

    const answer = await new Promise<string>((resolve, reject) => {
      const socket = connect(rig.port, "127.0.0.1", () => socket.write(head));
      let text = "";
      socket.on("data", (chunk) => {
        text += chunk.toString();
      });
      socket.once("close", () => resolve(text));
      socket.once("error", reject);
    });

    expect(answer).toMatch(/^HTTP\/1\.1 (400|431) /);
    expect(upstream.received).toEqual([]);
  });

  it("serves at most 32 requests of one session at a time", async () => {
    const held: (() => void)[] = [];
    const upstream = await startUpstream(cleanups, (_received, response) => {
      held.push(() => response.end("{}"));
    });
    const rig = await Rig.start(cleanups, { modelBaseUrl: upstream.url });
    const running = Array.from(
      { length: 32 },
      async () => await rig.post("/model/v1/messages", body),
    );
    while (held.length < 32) await new Promise((resolve) => setTimeout(resolve, 5));

    const refused = await rig.post("/model/v1/messages", body);
    for (const finish of held) finish();
    const statuses = (await Promise.all(running)).map(({ status }) => status);

    expect(refused.status).toBe(429);
    expect(await refused.json()).toMatchObject({
      error: { type: "rate_limit_error", code: "LIMIT_EXCEEDED" },
    });
    expect(new Set(statuses)).toEqual(new Set([200]));
    expect((await rig.post("/nothing", {})).status).toBe(404);
  });

  it("keeps concurrent sessions apart", async () => {
    const { upstream, rig } = await start();
    const snapshot = rig.snapshots.get(SESSION);
    if (snapshot === undefined) throw new Error("the rig has a session");
    const sessions = Array.from({ length: 20 }, (_, i) => `sesn_${i}`);
    for (const id of sessions) {
      rig.snapshots.set(id, { ...snapshot, sessionId: id });
      rig.leases.set(id, { token: `lease-${id}`, epoch: 1, owner: POD, terminated: false });
    }

    const answers = await Promise.all(
      sessions.map(async (id) => {
        const nonce = randomUUID();
        const answer = await rig.post(
          "/mcp/docs",
          { ...call, params: { name: "echo", arguments: { nonce } } },
          { authorization: `Bearer ${await rig.token(id, `lease-${id}`)}` },
        );
        return { nonce, status: answer.status };
      }),
    );

    expect(answers.every(({ status }) => status === 200)).toBe(true);
    expect(upstream.received).toHaveLength(20);
    for (const { nonce } of answers) {
      expect(upstream.received.filter((received) => received.body.includes(nonce))).toHaveLength(1);
    }
  });

  it("counts what it served by role and outcome", async () => {
    const { rig } = await start();
    await rig.post("/mcp/docs", call);
    await rig.post("/mcp/docs", call, { authorization: "Bearer x" });

    const text = await rig.registry.metrics();

    expect(text).toContain(
      'drover_proxy_requests_total{role="mcp",destination="mcp_server",outcome="ok"} 1',
    );
    expect(text).toContain(
      'drover_proxy_requests_total{role="mcp",destination="mcp_server",outcome="unauthenticated"} 1',
    );
    expect(text).toContain('drover_credential_reads_total{source="secret",outcome="ok"} 1');
    expect(text).toContain('drover_proxy_request_duration_seconds_count{role="mcp"} 2');
  });
});
