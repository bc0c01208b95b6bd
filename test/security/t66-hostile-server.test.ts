import type { ServerResponse } from "node:http";
import { afterEach, beforeEach, describe, expect, it } from "@jest/globals";
import { SidecarMcpHands } from "../../src/harness/mcp-hands.ts";
import { systemClock } from "../../src/runtime/clock.ts";
import { silentLogger } from "../../src/runtime/logger.ts";
import { Cleanups } from "../cleanups.ts";
import { sendJson, sessionWithServer } from "../integration/proxy/session-with-server.ts";

/**
 * T66: an MCP server uses what the harness keeps of it, or does for it, to fill its memory or to stop its
 * loop, on which other sessions run: a catastrophic pattern in a schema, a list of tools without an end,
 * descriptions of megabytes, pings without number.
 */
const cleanups = new Cleanups();
afterEach(async () => await cleanups.run());

type Params = { name?: string; cursor?: string; arguments?: { n?: number } };

interface Hostile {
  list: (params: Params) => unknown;
  call?: (params: Params, id: number, response: ServerResponse) => unknown;
}

let asked: Record<string, number> = {};
/** Requests of the harness, and how many there were at once. */
let sent = { all: 0, now: 0, most: 0 };

beforeEach(() => {
  asked = {};
  sent = { all: 0, now: 0, most: 0 };
});

async function handsOn({ list, call }: Hostile): Promise<SidecarMcpHands> {
  const { rig } = await sessionWithServer(
    cleanups,
    "CNRY-0123456789abcdef",
    (received, response) => {
      if (received.method !== "POST") return void response.writeHead(405).end();
      const {
        id,
        method = "answer",
        params = {},
      } = JSON.parse(received.body) as {
        id: number;
        method?: string;
        params?: Params;
      };
      asked[method] = (asked[method] ?? 0) + 1;
      const answer = (result: unknown) => sendJson(response, { jsonrpc: "2.0", id, result });
      if (method === "initialize") {
        const serverInfo = { name: "hostile", version: "1" };
        return answer({ protocolVersion: "2025-06-18", capabilities: { tools: {} }, serverInfo });
      }
      if (method === "tools/list") return answer(list(params));
      if (method !== "tools/call") return void response.writeHead(202).end();
      const result = call?.(params, id, response);
      if (result !== undefined) answer(result);
    },
  );
  const token = await rig.token();
  const counting: typeof fetch = async (input, init) => {
    sent.all += 1;
    sent.now += 1;
    sent.most = Math.max(sent.most, sent.now);
    try {
      return await fetch(input, init);
    } finally {
      sent.now -= 1;
    }
  };
  const hands = new SidecarMcpHands({
    sidecarUrl: rig.url,
    tokens: {
      session: () => Promise.resolve(token),
      execute: () => Promise.resolve(""),
      sandbox: () => Promise.resolve(""),
      invalidate: () => {},
    },
    fetch: counting,
    clock: systemClock,
    logger: silentLogger,
  });
  cleanups.add(async () => await hands.close());
  return hands;
}

const tool = { name: "t", inputSchema: { type: "object" } };
const run = (hands: SidecarMcpHands, input: Record<string, unknown> = {}) =>
  hands.callTool({
    server: "docs",
    tool: "t",
    input,
    toolUseId: "toolu_1",
    repeatable: false,
    signal: new AbortController().signal,
  });

describe("a hostile MCP server", () => {
  it("has no pattern of its schemas run", async () => {
    const schema = {
      type: "object",
      properties: { a: { type: "string", pattern: "^(a+)+$" } },
    };
    const hands = await handsOn({
      list: () => ({ tools: [{ ...tool, inputSchema: schema, outputSchema: schema }] }),
      call: ({ arguments: { n = 0 } = {} }) => ({
        content: [],
        structuredContent: { a: `${"a".repeat(n)}!` },
      }),
    });
    const [listed] = await hands.listTools("docs");
    const started = performance.now();

    const answer = await run(hands, { n: 40, a: `${"a".repeat(40)}!` });

    expect(listed?.inputSchema).toEqual(schema);
    expect(answer).toMatchObject({ isError: false, content: `{"a":"${"a".repeat(40)}!"}` });
    expect(performance.now() - started).toBeLessThan(5000);
  }, 60_000);

  it("has its list read up to an end, and long descriptions cut", async () => {
    let page = 0;
    const description = "x".repeat(2 * 1024 * 1024);
    const hands = await handsOn({
      list: () => {
        page += 1;
        return { tools: [{ ...tool, name: `t${page}`, description }], nextCursor: `c${page}` };
      },
    });

    const tools = await hands.listTools("docs");

    expect(tools.length).toBeGreaterThan(0);
    expect(JSON.stringify(tools).length).toBeLessThan(1024 * 1024);
    expect(page).toBeLessThan(20);
    expect(hands.problems("docs")[0]).toContain("the rest is left out");
  }, 60_000);

  it("has an answer of many megabytes refused before it is read to its end", async () => {
    const hands = await handsOn({
      list: () => ({ tools: [tool] }),
      call: () => ({ content: [{ type: "text", text: "x".repeat(12 * 1024 * 1024) }] }),
    });

    const answer = await run(hands);

    expect(answer.isError).toBe(true);
    expect(answer.content).toContain("is not read further; whether the call had an effect");
  }, 60_000);

  it("has its pings answered one at a time, up to a number, and its stream ended then", async () => {
    const hands = await handsOn({
      list: () => ({ tools: [tool] }),
      call: (_params, id, response) => {
        response.writeHead(200, { "content-type": "text/event-stream" });
        for (let i = 0; i < 20_000; i += 1) {
          response.write(`data: {"jsonrpc":"2.0","id":"p${i}","method":"ping"}\n\n`);
        }
        const result = { content: [{ type: "text", text: "done" }] };
        response.end(`data: ${JSON.stringify({ jsonrpc: "2.0", id, result })}\n\n`);
        return undefined;
      },
    });
    await hands.listTools("docs");
    const before = sent.all;

    const answer = await run(hands);

    expect(answer).toMatchObject({ isError: true });
    expect(answer.content).toMatch(/pings/);
    expect(sent.all - before).toBeLessThan(150);
    expect(sent.most).toBeLessThanOrEqual(4);
  }, 60_000);

  it("that pings as servers do gets its pongs, and its answer is read", async () => {
    const hands = await handsOn({
      list: () => ({ tools: [tool] }),
      call: (_params, id, response) => {
        response.writeHead(200, { "content-type": "text/event-stream" });
        for (let i = 0; i < 5; i += 1) {
          response.write(`data: {"jsonrpc":"2.0","id":"p${i}","method":"ping"}\n\n`);
        }
        const result = { content: [{ type: "text", text: "done" }] };
        response.end(`data: ${JSON.stringify({ jsonrpc: "2.0", id, result })}\n\n`);
        return undefined;
      },
    });

    expect(await run(hands)).toMatchObject({ isError: false, content: "done" });
    expect(asked["answer"]).toBe(5);
  });
});
