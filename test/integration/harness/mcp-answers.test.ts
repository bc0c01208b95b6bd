import { afterEach, describe, expect, it } from "@jest/globals";
import { SidecarMcpHands } from "../../../src/harness/mcp-hands.ts";
import { patientFetch } from "../../../src/harness/patient-fetch.ts";
import { parseExact } from "../../../src/protocol/exact-json.ts";
import { systemClock } from "../../../src/runtime/clock.ts";
import { silentLogger } from "../../../src/runtime/logger.ts";
import { type McpAnswer, McpEndpoint, textResult, toolNamed } from "../../fakes/mcp-endpoint.ts";
import { eventsOf, HarnessBed } from "../harness-bed.ts";

let endpoint: McpEndpoint;
let hands: SidecarMcpHands;

async function startHands(answer: McpAnswer, callMs?: number): Promise<void> {
  endpoint = new McpEndpoint(answer);
  hands = new SidecarMcpHands({
    sidecarUrl: await endpoint.listen(),
    tokens: {
      session: () => Promise.resolve("session-token"),
      execute: () => Promise.resolve(""),
      sandbox: () => Promise.resolve(""),
      invalidate: () => {},
    },
    fetch: patientFetch(60_000),
    clock: systemClock,
    logger: silentLogger,
    ...(callMs === undefined ? {} : { callMs }),
  });
}

afterEach(async () => {
  await hands.close();
  await endpoint.close();
});

const call = (tool: string, input: Record<string, unknown> = {}, signal?: AbortSignal) =>
  hands.callTool({
    server: "files",
    tool,
    input,
    toolUseId: "toolu_1",
    repeatable: false,
    signal: signal ?? new AbortController().signal,
  });

const pause = (ms: number) => systemClock.sleep(ms);

describe("what ends one call of an MCP server", () => {
  it("is an answer that is an error: calls beside it and the server's session stay", async () => {
    await startHands(async ({ params: { name }, session }) => {
      if (name === "bad") return { error: { code: -32602, message: "no such selector" } };
      if (name === "slow") await pause(400);
      return textResult(`${name} in ${session}`);
    });
    const first = await call("open");
    const slow = call("slow");

    const bad = await call("bad");

    expect(bad).toMatchObject({ isError: true, outcome: "known" });
    expect(bad.content).toContain("no such selector");
    expect(await slow).toMatchObject({ content: "slow in s1", isError: false });
    expect(await call("title")).toMatchObject({ content: "title in s1" });
    expect(first.content).toBe("open in s1");
  });

  it("is the time that a call may take", async () => {
    await startHands(async ({ params: { name } }) => {
      if (name === "hangs") await pause(3000);
      else await pause(500);
      return textResult(`${name} done`);
    }, 1000);
    const hangs = call("hangs");
    await pause(700);
    const neighbour = call("slow");

    expect(await hangs).toMatchObject({ isError: true, outcome: "unknown" });
    expect((await hangs).content).toContain("not answered within 1 s");
    expect(await neighbour).toMatchObject({ content: "slow done" });
    expect(endpoint.sessions).toBe(1);
  });

  it("is an interrupt", async () => {
    await startHands(async ({ params: { name } }) => {
      await pause(name === "stopped" ? 3000 : 500);
      return textResult(`${name} done`);
    });
    const stop = new AbortController();
    const stopped = call("stopped", {}, stop.signal).catch(() => "thrown");
    const neighbour = call("slow");
    await pause(200);
    stop.abort();

    expect(await stopped).toBe("thrown");
    expect(await neighbour).toMatchObject({ content: "slow done" });
    expect(endpoint.sessions).toBe(1);
  });

  it("is a connection that breaks: calls beside it keep theirs, the next gets a new session", async () => {
    await startHands(async ({ params: { name }, session }, response) => {
      if (name === "breaks") return void response.destroy();
      await pause(400);
      return textResult(`${name} in ${session}`);
    });
    await hands.listTools("files");
    const neighbour = call("slow");
    await pause(100);

    expect(await call("breaks")).toMatchObject({ outcome: "unknown" });
    expect(await neighbour).toMatchObject({ content: "slow in s1" });
    expect(await call("next")).toMatchObject({ content: "next in s2" });
  });
});

describe("numbers", () => {
  it.each(["application/json", "text/event-stream"])(
    "keep their digits to the server and back, by %s",
    async (type) => {
      await startHands(({ id }, response) => {
        const text = `{"jsonrpc":"2.0","id":${id},"result":{"content":[],"structuredContent":{"id":1234567890123456789,"price":10.0}}}`;
        if (type === "application/json") return text;
        response.writeHead(200, { "content-type": type });
        return void response.end(`event: message\nid: 1\ndata: ${text}\n\n`);
      });

      const answer = await call("get", parseExact('{"id":9007199254740993,"price":10.0}'));

      expect(endpoint.requests.at(-1)?.raw).toContain(
        '"arguments":{"id":9007199254740993,"price":10.0}',
      );
      expect(answer.content).toBe('{"id":1234567890123456789,"price":10.0}');
    },
  );

  it("keep their digits in what a tool says of its input", async () => {
    await startHands(
      ({ id }) =>
        `{"jsonrpc":"2.0","id":${id},"result":{"tools":[{"name":"get","inputSchema":{"type":"object","properties":{"id":{"type":"integer","maximum":9223372036854775807}}}}]}}`,
    );

    const [tool] = await hands.listTools("files");

    expect(JSON.stringify(tool?.inputSchema)).toContain('"maximum":9223372036854775807');
  });
});

describe("a list of tools", () => {
  it("is read page by page, and a tool without a usable schema costs no other tool", async () => {
    let deep: unknown = {};
    for (let i = 0; i < 40; i += 1) deep = { type: "object", properties: { a: deep } };
    await startHands(({ params: { cursor } }) =>
      cursor === undefined
        ? { tools: [toolNamed("good"), { name: "deep", inputSchema: deep }], nextCursor: "2" }
        : { tools: [{ name: "true", inputSchema: true }, { name: 7 }, toolNamed("last")] },
    );

    const tools = await hands.listTools("files");

    expect(tools.map(({ name }) => name)).toEqual(["good", "true", "last"]);
    expect(hands.problems("files")).toEqual([
      expect.stringContaining('MCP server "files": tool "deep" is left out'),
      expect.stringContaining("no usable name"),
    ]);
  });
});

describe("a session", () => {
  it("gets the tools of a server that came late, and says once that they were missing", async () => {
    let asked = 0;
    await startHands(({ method }, response) => {
      if (method !== "tools/list") return textResult("ran");
      asked += 1;
      return asked <= 1 ? void response.writeHead(503).end() : { tools: [toolNamed("get")] };
    });
    const rig = new HarnessBed();
    await rig.start(
      "scenarios: { s: { turns: [{ tools: [{ name: mcp__files__get }] }, { say: x }] } }",
    );
    try {
      rig.startWorker({ mcp: () => hands });
      const ref = await rig.createSession("go", {
        model: "scripted:s",
        mcpServers: [{ name: "files", url: "https://files.example/mcp" }],
        tools: [
          {
            type: "mcp_toolset",
            mcpServerName: "files",
            defaultConfig: { permissionPolicy: "always_allow" },
          },
        ],
      });

      const events = await rig.idle(ref);

      expect(eventsOf(events, "tool.result").map(({ data }) => data.content)).toEqual(["ran"]);
      expect(asked).toBe(2);
    } finally {
      await rig.stop();
    }
  });
});
