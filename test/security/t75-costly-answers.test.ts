import type { ServerResponse } from "node:http";
import { afterEach, describe, expect, it } from "@jest/globals";
import { Cleanups } from "../cleanups.ts";
import { eventually } from "../eventually.ts";
import { POD, type Rig, SESSION, startUpstream } from "../integration/proxy/rig.ts";
import {
  call,
  result,
  sendJson,
  sessionWithServer,
} from "../integration/proxy/session-with-server.ts";
import { newMarker } from "./sweeper.ts";

/**
 * T75: a server answers with JSON whose values are so short that they take a hundred times the memory of
 * their text, or with many long answers at once that all wait for their end. The sidecar lives in
 * 384 MiB and serves fifty sessions.
 */
const cleanups = new Cleanups();
afterEach(async () => await cleanups.run());

const MIB = 1024 * 1024;
const repeated = (piece: string) => piece.repeat(Math.floor((15 * MIB) / piece.length));
const keys = (count: number) =>
  Array.from({ length: count }, (_, key) => `"${key.toString(36)}":0`);
const json = { "content-type": "application/json" };

const shapes: readonly (readonly [string, () => string])[] = [
  ["empty arrays", () => `[${repeated("[],")}0]`],
  ["empty objects", () => `[${repeated("{},")}0]`],
  ["numbers whose text is kept", () => `[${repeated("1.0,")}0]`],
  ["short keys", () => `{${keys(1_500_000).join(",")}}`],
  ["words", () => `[${repeated("null,")}0]`],
];

const answered = (value: string) => `{"jsonrpc":"2.0","id":1,"result":{"content":[],"a":${value}}}`;

describe("an answer that", () => {
  it.each(
    shapes.flatMap(([name, shape]) =>
      ["/mcp/docs", "/model/v1/messages"].map((path) => ({ name, path, shape })),
    ),
  )(
    "is made of $name costs no more than its text at $path, and says why it is refused",
    async ({ path, shape }) => {
      const body = answered(shape());
      const secret = newMarker("T75");
      const answer = (response: ServerResponse) => response.writeHead(200, json).end(body);
      const model = await startUpstream(cleanups, (_received, response) => answer(response));
      const { rig } = await sessionWithServer(
        cleanups,
        secret,
        (_received, response) => answer(response),
        {
          modelBaseUrl: model.url,
          modelApiKey: secret,
        },
      );
      const before = process.memoryUsage().rss;

      const refused = await rig.post(path, call("echo"));

      expect(refused.status).toBe(502);
      expect(await refused.json()).toMatchObject({
        error: {
          code: "UPSTREAM_REFUSED",
          message: expect.stringMatching(/more than 100000 values/),
        },
      });
      expect(process.memoryUsage().rss - before).toBeLessThan(200 * MIB);
    },
  );

  it("is long but of few values comes through", async () => {
    const text = "x".repeat(15 * MIB);
    const { rig } = await sessionWithServer(cleanups, newMarker("T75"), (_received, response) =>
      sendJson(response, result(1, text)),
    );

    const answer = await (await rig.post("/mcp/docs", call("echo"))).json();

    expect(answer).toEqual(result(1, text));
  });

  it("is a list of tools has a limit of its own", async () => {
    const tools = [
      { name: "a", description: "x".repeat(5 * MIB), inputSchema: { type: "object" } },
    ];
    const { rig } = await sessionWithServer(cleanups, newMarker("T75"), (_received, response) =>
      sendJson(response, { jsonrpc: "2.0", id: 1, result: { tools } }),
    );

    const list = { jsonrpc: "2.0", id: 1, method: "tools/list" };
    const answer = await (await rig.post("/mcp/docs", list)).text();

    expect(answer).toMatch(/more than 4194304 bytes/);
  });

  it("is a request with too many values is refused before anybody is asked", async () => {
    const { rig, upstream } = await sessionWithServer(cleanups, newMarker("T75"));
    const values = `[${"[],".repeat(1_000_000)}0]`;

    const refused = await rig.post(
      "/mcp/docs",
      JSON.stringify(call("echo")).replace('"hi"', values),
    );

    expect(refused.status).toBe(400);
    expect(await refused.text()).toContain("more than 100000 values");
    expect(upstream.received).toEqual([]);
  });
});

/** A server whose answers stop short of their end, and sessions that wait for them. */
async function standing() {
  const waiting: ServerResponse[] = [];
  const { rig, upstream } = await sessionWithServer(
    cleanups,
    newMarker("T75"),
    ({ body }, response) => {
      if (body.includes("short")) {
        sendJson(response, result(1, "short"));
        return;
      }
      response.writeHead(200, json).write(`{"jsonrpc":"2.0","id":1,"result":{"a":"`);
      response.write("x".repeat(9 * MIB));
      waiting.push(response);
    },
  );
  const ask = async (session: string, text: string) =>
    await fetch(`${rig.url}/mcp/docs`, {
      method: "POST",
      headers: {
        "content-type": "application/json",
        authorization: `Bearer ${await tokenOf(rig, session)}`,
      },
      body: JSON.stringify(call("echo", 1, { text })),
    });
  return { rig, upstream, waiting, ask };
}

async function tokenOf(rig: Rig, session: string): Promise<string> {
  const snapshot = rig.snapshots.get(SESSION);
  if (snapshot === undefined) throw new Error("the rig has a session");
  rig.snapshots.set(session, { ...snapshot, sessionId: session });
  rig.leases.set(session, { token: "lease-1", epoch: 1, owner: POD, terminated: false });
  return await rig.token(session);
}

const sessionNumber = (number: number) => `sesn_poolab00_${String(number).repeat(26)}`;

describe("answers that are kept for their end", () => {
  it.each([
    ["of one session take half of the room", [1, 1, 1], /no room .* the session's/],
    [
      "of several sessions are bounded together",
      [1, 1, 2, 2, 3],
      /no room .* requests and answers/,
    ],
  ])("%s, and short ones of another come through", async (_name, sessions, reason) => {
    const { waiting, ask } = await standing();
    const refused: string[] = [];
    const long = sessions.map(async (session) => {
      const answer = await ask(sessionNumber(session), "long");
      refused.push(await answer.text());
    });
    await eventually("a refusal", () => refused.length > 0);
    await eventually("all answers", () => waiting.length === sessions.length);

    const short = await (await ask(sessionNumber(4), "short")).json();

    expect(short).toEqual(result(1, "short"));
    expect(refused).toEqual([expect.stringMatching(reason)]);
    for (const response of waiting) response.destroy();
    await Promise.all(long);
    expect((await ask(sessionNumber(1), "short")).status).toBe(200);
  });
});
