import { createServer, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { afterEach, beforeEach, describe, expect, it } from "@jest/globals";
import { isRefusal, SidecarMcpHands } from "../../../src/harness/mcp-hands.ts";
import { systemClock } from "../../../src/runtime/clock.ts";
import { silentLogger } from "../../../src/runtime/logger.ts";

/**
 * A small MCP server over streamable HTTP with the faults of the field: sessions it forgets, answers
 * it drops. It stands where the sidecar stands.
 */
class FaultyServer {
  /** What the next tools/call gets instead of an answer. */
  fault: "none" | 404 | 400 | 503 | "drop" | 401 = "none";
  readonly ran: string[] = [];
  initialised = 0;
  readonly tokens = new Set<string | undefined>();
  server: Server | undefined;

  async listen(): Promise<string> {
    this.server = createServer((request, response) => {
      let text = "";
      request.on("data", (chunk: Buffer) => {
        text += chunk.toString("utf8");
      });
      request.on("end", () => {
        this.tokens.add(request.headers.authorization);
        if (request.method !== "POST") return response.writeHead(405).end();
        const message = JSON.parse(text) as { id?: number; method: string; params?: Params };
        if (message.id === undefined) return response.writeHead(202).end();
        return this.#answer(message.id, message.method, message.params ?? {}, response);
      });
    });
    await new Promise<void>((resolve) => this.server?.listen(0, "127.0.0.1", resolve));
    const { port } = this.server.address() as AddressInfo;
    return `http://127.0.0.1:${port}`;
  }

  #answer(id: number, method: string, params: Params, response: ServerResponse) {
    const reply = (result: unknown, headers: Record<string, string> = {}) =>
      response
        .writeHead(200, { "content-type": "application/json", ...headers })
        .end(JSON.stringify({ jsonrpc: "2.0", id, result }));
    if (method === "initialize") {
      if (this.fault === 401) return response.writeHead(401).end();
      this.initialised += 1;
      const serverInfo = { name: "faulty", version: "1" };
      const capabilities = { tools: {} };
      return reply(
        { protocolVersion: params.protocolVersion, capabilities, serverInfo },
        { "mcp-session-id": `s${this.initialised}` },
      );
    }
    if (method === "tools/list") {
      const tool = (name: string, readOnlyHint = false) => ({
        name,
        inputSchema: { type: "object" },
        annotations: { readOnlyHint },
      });
      return reply({ tools: [tool("get", true), tool("send"), tool("a.b/c")] });
    }
    const { fault } = this;
    this.fault = "none";
    if (typeof fault === "number") return response.writeHead(fault).end("no");
    this.ran.push(`${params.name} ${params["_meta"]?.["drover.dev/idempotency-key"]}`);
    if (fault === "drop") return response.destroy();
    return reply({ content: [{ type: "text", text: `${params.name} ran` }] });
  }
}

interface Params {
  protocolVersion?: string;
  name?: string;
  _meta?: Record<string, string>;
}

let server: FaultyServer;
let hands: SidecarMcpHands;

beforeEach(async () => {
  server = new FaultyServer();
  hands = new SidecarMcpHands({
    sidecarUrl: await server.listen(),
    tokens: {
      session: () => Promise.resolve("session-token"),
      execute: () => Promise.resolve(""),
      sandbox: () => Promise.resolve(""),
      invalidate: () => {},
    },
    fetch,
    clock: systemClock,
    logger: silentLogger,
  });
});

afterEach(async () => {
  await hands.close();
  server.server?.closeAllConnections();
  await new Promise((resolve) => server.server?.close(resolve));
});

const call = (tool: string, repeatable = false) => ({
  server: "files",
  tool,
  input: {},
  toolUseId: "toolu_1",
  repeatable,
  signal: new AbortController().signal,
});

describe("an MCP server behind the sidecar", () => {
  it("lists its tools and runs them, each request with the session's token", async () => {
    const tools = await hands.listTools("files");

    expect(tools.map(({ name, readOnly }) => ({ name, readOnly }))).toEqual([
      { name: "get", readOnly: true },
      { name: "send", readOnly: false },
      { name: "a.b/c", readOnly: false },
    ]);
    expect(await hands.callTool(call("a.b/c"))).toEqual({
      content: "a.b/c ran",
      isError: false,
      outcome: "known",
    });
    expect(server.ran).toEqual(["a.b/c toolu_1"]);
    expect([...server.tokens]).toEqual(["Bearer session-token"]);
  });

  it.each([404, 400] as const)(
    "that answers %i has lost the session: a new one, and the call runs",
    async (fault) => {
      await hands.listTools("files");
      server.fault = fault;

      const outcome = await hands.callTool(call("send"));

      expect(outcome).toMatchObject({ content: "send ran", outcome: "known" });
      expect(server.ran).toEqual(["send toolu_1"]);
      expect(server.initialised).toBe(2);
    },
  );

  it.each([503, "drop"] as const)(
    "that answers %s may have run the call: it is not repeated",
    async (fault) => {
      await hands.listTools("files");
      server.fault = fault;

      const outcome = await hands.callTool(call("send"));

      expect(outcome).toMatchObject({ isError: true, outcome: "unknown" });
      expect(server.ran.length).toBe(fault === "drop" ? 1 : 0);
      expect(await hands.callTool(call("send"))).toMatchObject({ outcome: "known" });
      expect(server.initialised).toBe(2);
    },
  );

  it.each([503, "drop"] as const)(
    "that answers %s to a call that only reads is asked again",
    async (fault) => {
      await hands.listTools("files");
      server.fault = fault;

      expect(await hands.callTool(call("get", true))).toMatchObject({
        outcome: "known",
        isError: false,
      });
    },
  );

  it("that refuses the credential is told apart from one that cannot be reached", async () => {
    server.fault = 401;
    const refused = await hands.listTools("files").catch((error: unknown) => error);
    server.server?.closeAllConnections();
    await new Promise((resolve) => server.server?.close(resolve));
    const unreachable = await hands.listTools("files").catch((error: unknown) => error);

    expect([isRefusal(refused), isRefusal(unreachable)]).toEqual([true, false]);
    expect(await hands.callTool(call("send"))).toMatchObject({
      isError: true,
      outcome: "known",
      content: expect.stringContaining("The call had no effect."),
    });
  });
});
