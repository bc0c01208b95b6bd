import { afterEach, beforeEach, describe, expect, it } from "@jest/globals";
import type { McpCall, McpHands } from "../../../src/harness/mcp-hands.ts";
import type { McpTool } from "../../../src/harness/mcp-tools.ts";
import { eventsOf, HarnessBed, typesOf } from "../harness-bed.ts";
import { expectInvariants } from "./invariants.ts";

const SCRIPT = `
scenarios:
  bash:
    turns:
      - tools: [{ name: bash, input: { command: "echo one >> effects; sleep 1; cat effects" } }]
      - branches:
          - when: { isError: true }
            say: I look again.
            tools: [{ name: bash, input: { command: "echo two >> effects; cat effects" } }]
            then: end
        say: Fine at once.
      - name: end
        say: Fine.
  ask:
    turns:
      - tools: [{ name: bash, input: { command: "echo one >> effects" } }]
      - { say: Understood. }
  custom:
    turns:
      - tools:
          - { name: ticket, input: { title: a } }
          - { name: ticket, input: { title: b } }
          - { name: bash, input: { command: "echo here" } }
      - { expect: { contains: [A-1, B-2, here] }, say: Filed. }
      - { say: Later. }
  mcp:
    turns:
      - tools: [{ name: mcp__files__get, input: { path: x } }, { name: mcp__files__send, input: {} }]
      - { say: Done. }
  mcp-down:
    turns: [{ say: Without tools. }]
`;

const askTools = [
  {
    type: "agent_toolset_20260401" as const,
    defaultConfig: { permissionPolicy: "always_ask" as const },
  },
];
const customTools = [
  { type: "agent_toolset_20260401" as const },
  {
    type: "custom" as const,
    name: "ticket",
    description: "Files one.",
    inputSchema: { type: "object" },
  },
];
const mcpTools = [
  {
    type: "mcp_toolset" as const,
    mcpServerName: "files",
    defaultConfig: { permissionPolicy: "always_allow" as const },
  },
];
const mcpServers = [{ name: "files", url: "https://files.example/mcp" }];

let rig: HarnessBed;

beforeEach(async () => {
  rig = new HarnessBed();
  await rig.start(SCRIPT);
});

afterEach(() => rig.stop());

describe("a sandbox", () => {
  it("that cannot be started is a tool error with the reason, and the session goes on", async () => {
    rig.sandboxTrouble = { reason: "ImagePullFailed", message: "image nope:1 does not exist" };
    rig.startWorker();
    const ref = await rig.createSession("go", { model: "scripted:bash" });

    const events = await rig.idle(ref);

    expect(eventsOf(events, "tool.result").map((event) => event.data)).toMatchObject([
      {
        is_error: true,
        outcome: "known",
        content: expect.stringContaining("image nope:1 does not exist"),
      },
      { is_error: true, outcome: "known" },
    ]);
    expect(eventsOf(events, "sandbox.requested").map((event) => event.data.generation)).toEqual([
      1, 2,
    ]);
    expectInvariants(events, await rig.requests());
  });

  it("that is lost during a call makes its outcome unknown; the next call gets generation 2", async () => {
    rig.startWorker();
    const ref = await rig.createSession("go", { model: "scripted:bash" });
    await rig.until(ref, "the command", () => hasEffect(ref));
    await rig.daemons.get(`${ref.id}:1`)?.close();
    await rig.send(ref, "sandbox.lost", {
      hand: "sandbox",
      generation: 1,
      reason: "PodDeleted",
      message: "the pod was deleted",
    });

    const events = await rig.idle(ref);

    const results = eventsOf(events, "tool.result").map((event) => event.data);
    expect(["unknown", "cancelled"]).toContain(results[0]?.outcome);
    expect(results[1]).toMatchObject({ outcome: "known", content: "two" });
    expect(rig.file(ref, "effects", 1)).toBe("one\n");
    expectInvariants(events, await rig.requests());
  });

  it("that does not answer for ten seconds is released as unreachable", async () => {
    rig.startWorker();
    const ref = await rig.createSession("go", { model: "scripted:ask", tools: askTools });
    await rig.idle(ref);
    // A sandbox from an earlier turn whose daemon is gone, unknown to everybody.
    await rig.send(ref, "sandbox.requested", { hand: "sandbox", generation: 1, template: "node" });
    const dead = {
      hand: "sandbox",
      generation: 1,
      sandboxId: `${ref.id}:1`,
      address: "127.0.0.1:47",
    };
    await rig.send(ref, "sandbox.provisioned", dead);
    const intent = eventsOf(await rig.events(ref), "tool.intent")[0];
    await rig.send(ref, "user.tool_confirmation", {
      tool_use_id: intent?.id ?? "",
      result: "allow",
    });

    const events = await rig.idle(ref, 2);

    expect(eventsOf(events, "sandbox.released")[0]?.data).toMatchObject({ reason: "Unreachable" });
    expect(eventsOf(events, "tool.result")[0]?.data).toMatchObject({
      is_error: true,
      outcome: "unknown",
    });
  });
});

describe("permission", () => {
  it("is asked for, and the call runs once it is given", async () => {
    rig.startWorker();
    const ref = await rig.createSession("go", { model: "scripted:ask", tools: askTools });
    const before = await rig.idle(ref);
    expect(eventsOf(before, "session.status_idle")[0]?.data.stop_reason).toBe("requires_action");
    expect(typesOf(before)).not.toContain("sandbox.requested");
    const intent = eventsOf(before, "tool.intent")[0];
    await rig.send(ref, "user.tool_confirmation", {
      tool_use_id: intent?.id ?? "",
      result: "allow",
    });

    const events = await rig.idle(ref, 2);

    expect(rig.file(ref, "effects")).toBe("one\n");
    expectInvariants(events, await rig.requests());
  });

  it("that is denied is a result with the person's words, and nothing runs", async () => {
    rig.startWorker();
    const ref = await rig.createSession("go", { model: "scripted:ask", tools: askTools });
    const intent = eventsOf(await rig.idle(ref), "tool.intent")[0];
    await rig.send(ref, "user.tool_confirmation", {
      tool_use_id: intent?.id ?? "",
      result: "deny",
      deny_message: "Not on a Friday.",
    });

    const events = await rig.idle(ref, 2);

    expect(eventsOf(events, "tool.result")[0]?.data).toMatchObject({
      outcome: "denied",
      content: "The call was rejected. Not on a Friday.",
    });
    expect(typesOf(events)).not.toContain("sandbox.requested");
  });
});

describe("custom tools", () => {
  it("wait for the client, one answer after the other, while the rest is done", async () => {
    rig.startWorker();
    const ref = await rig.createSession("go", { model: "scripted:custom", tools: customTools });
    const before = await rig.idle(ref);
    expect(eventsOf(before, "tool.result")).toHaveLength(1);
    const [first, second] = eventsOf(before, "tool.intent");
    await answer(ref, first?.id, "A-1");
    const between = await rig.idle(ref, 2);
    expect(eventsOf(between, "session.status_idle")[1]?.data.stop_reason).toBe("requires_action");
    await answer(ref, second?.id, "B-2");

    const events = await rig.idle(ref, 3);

    expect(eventsOf(events, "session.status_idle")[2]?.data.stop_reason).toBe("end_turn");
    expect((await rig.requests()).map((request) => request.outcome)).toEqual([
      "answered",
      "answered",
    ]);
  });

  it("that wait are settled by an interrupt; a late answer changes nothing", async () => {
    rig.startWorker();
    const ref = await rig.createSession("go", { model: "scripted:custom", tools: customTools });
    const intent = eventsOf(await rig.idle(ref), "tool.intent")[0];
    await rig.send(ref, "user.interrupt", {});
    const events = await rig.idle(ref, 2);
    await answer(ref, intent?.id, "too late");

    expect(eventsOf(events, "session.status_idle")[1]?.data.stop_reason).toBe("interrupted");
    expectInvariants(events, await rig.requests());
  });

  async function answer(ref: { tenant: string; id: string }, id: string | undefined, text: string) {
    await rig.send(ref, "user.custom_tool_result", {
      custom_tool_use_id: id ?? "",
      content: [{ type: "text", text }],
    });
  }
});

describe("MCP tools", () => {
  const tools: McpTool[] = ["get", "send"].map((name) => ({
    name,
    description: name,
    inputSchema: { type: "object" },
    readOnly: name === "get",
  }));

  function hands(calls: McpCall[], held?: Promise<never>): () => McpHands {
    return () => ({
      listTools: () => Promise.resolve(tools),
      callTool: async (call) => {
        calls.push(call);
        if (held !== undefined && call.tool === "send") await held;
        return { content: `${call.tool} done`, isError: false, outcome: "known" };
      },
      problems: () => [],
      close: () => Promise.resolve(),
    });
  }

  it("are called under their true names with the model's id", async () => {
    const calls: McpCall[] = [];
    rig.startWorker({ mcp: hands(calls) });
    const ref = await rig.createSession("go", {
      model: "scripted:mcp",
      tools: mcpTools,
      mcpServers,
    });

    const events = await rig.idle(ref);

    const intents = eventsOf(events, "tool.intent").map((event) => event.data.id);
    expect(
      calls.map(({ tool, server, toolUseId, repeatable }) => ({
        tool,
        server,
        toolUseId,
        repeatable,
      })),
    ).toEqual([
      { tool: "get", server: "files", toolUseId: intents[0], repeatable: true },
      { tool: "send", server: "files", toolUseId: intents[1], repeatable: false },
    ]);
    expectInvariants(events, await rig.requests());
  });

  it("that a dead worker had begun are not repeated unless they only read", async () => {
    const first: McpCall[] = [];
    const second: McpCall[] = [];
    const lost = rig.startWorker({
      mcp: hands(first, new Promise(() => {})),
      isDead: () => true,
      options: { concurrency: 1 },
    });
    const ref = await rig.createSession("go", {
      model: "scripted:mcp",
      tools: mcpTools,
      mcpServers,
    });
    await rig.until(ref, "both calls", () => first.length === 2);
    await lost.kill();
    rig.startWorker({ mcp: hands(second) });

    const events = await rig.idle(ref);

    expect(second.map((call) => call.tool)).not.toContain("send");
    const results = eventsOf(events, "tool.result").map((event) => event.data.outcome);
    expect(results.toSorted()).toEqual(["known", "unknown"]);
    expectInvariants(events, await rig.requests());
  });

  it("of a server that cannot be reached are left out, reported, and the session goes on", async () => {
    rig.startWorker();
    const ref = await rig.createSession("go", {
      model: "scripted:mcp-down",
      tools: mcpTools,
      mcpServers,
    });

    const events = await rig.idle(ref);

    expect(eventsOf(events, "session.error")[0]?.data).toMatchObject({
      type: "mcp_connection_failed_error",
      message: expect.stringContaining('"files"'),
    });
    expect(eventsOf(events, "session.status_idle")[0]?.data.stop_reason).toBe("end_turn");
  });
});

describe("a session on which the harness fails", () => {
  it("does not disturb the others, does not spin, and is told in the end", async () => {
    let broken = 0;
    rig.startWorker({
      sandboxClient: (client) => ({
        ...client,
        execute: (address, request, signal) => {
          if (request.input["command"] === "echo one >> effects") {
            broken += 1;
            throw new Error("a bug of ours");
          }
          return client.execute(address, request, signal);
        },
      }),
      options: { failureBackoff: { baseMs: 40, maxMs: 200 } },
    });
    const bad = await rig.createSession("go", { model: "scripted:ask" });
    const good = await rig.createSession("go", { model: "scripted:bash" });

    const events = await rig.idle(bad);
    await rig.idle(good);

    expect(broken).toBe(5);
    expect(eventsOf(events, "session.error").at(-1)?.data).toMatchObject({
      type: "unknown_error",
      retry_status: "exhausted",
    });
    expect(eventsOf(events, "session.status_idle")[0]?.data.stop_reason).toBe("retries_exhausted");
  });
});

function hasEffect(ref: { tenant: string; id: string }): boolean {
  try {
    return rig.file(ref, "effects") !== "";
  } catch {
    return false;
  }
}
