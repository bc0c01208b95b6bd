import { afterEach, beforeEach, describe, expect, it } from "@jest/globals";
import type { McpCall, McpHands } from "../../../src/harness/mcp-hands.ts";
import type { McpTool } from "../../../src/harness/mcp-tools.ts";
import { aborted } from "../../../src/runtime/abort.ts";
import { systemClock } from "../../../src/runtime/clock.ts";
import { AppError } from "../../../src/runtime/errors.ts";
import { eventsOf, HarnessBed, typesOf } from "../harness-bed.ts";
import { expectInvariants } from "./invariants.ts";

const SCRIPT = `
scenarios:
  charge:
    turns:
      - tools: [{ name: mcp__pay__charge, input: {} }]
      - { say: Done. }
  both:
    turns:
      - tools:
          - { name: bash, input: { command: "echo one >> effects" } }
          - { name: mcp__pay__charge, input: {} }
      - { say: Done. }
`;

const mcpServers = [{ name: "pay", url: "https://pay.example/mcp" }];
const pay = (policy: "always_allow" | "always_ask") => ({
  type: "mcp_toolset" as const,
  mcpServerName: "pay",
  defaultConfig: { permissionPolicy: policy },
});
const charge: McpTool = {
  name: "charge",
  description: "",
  inputSchema: { type: "object" },
  readOnly: false,
};

let rig: HarnessBed;
/** Every charge that was sent, by whichever worker. */
let charges: string[];

beforeEach(async () => {
  rig = new HarnessBed();
  charges = [];
  await rig.start(SCRIPT);
});

afterEach(() => rig.stop());

/** Charges, and answers at once or only when the call is broken off. */
function till(answers: "at once" | "never"): () => McpHands {
  return () => ({
    listTools: () => Promise.resolve([charge]),
    callTool: async (call: McpCall) => {
      charges.push(call.toolUseId);
      if (answers === "never") {
        await aborted(call.signal);
        throw new AppError("UNAVAILABLE", "broken off");
      }
      return { content: "charged", isError: false, outcome: "known" };
    },
    problems: () => [],
    close: () => Promise.resolve(),
  });
}

describe("an MCP call that must not be made twice", () => {
  it("is not repeated when another call of its round fails the whole session", async () => {
    let sent = 0;
    rig.startWorker({
      mcp: till("never"),
      options: { failureBackoff: { baseMs: 10, maxMs: 10 } },
      sandboxClient: (client) => ({
        ...client,
        execute: async (address, request, signal) => {
          sent += 1;
          while (charges.length === 0) await systemClock.sleep(10);
          if (sent === 1) throw new AppError("INTERNAL", "not a daemon's answer");
          return await client.execute(address, request, signal);
        },
      }),
    });
    const ref = await rig.createSession("go", {
      model: "scripted:both",
      tools: [{ type: "agent_toolset_20260401" }, pay("always_allow")],
      mcpServers,
    });

    const events = await rig.idle(ref);

    expect(charges).toHaveLength(1);
    const outcomes = eventsOf(events, "tool.result").map((event) => event.data.outcome);
    expect(outcomes.toSorted()).toEqual(["known", "unknown"]);
    expectInvariants(events, await rig.requests());
  });

  it("is settled as unknown before its session is suspended, and not repeated after", async () => {
    const lost = rig.startWorker({
      mcp: till("never"),
      isDead: () => true,
      options: { concurrency: 1 },
    });
    const ref = await rig.createSession("go", {
      model: "scripted:charge",
      tools: [pay("always_allow")],
      mcpServers,
    });
    await rig.until(ref, "the charge", () => charges.length === 1);
    await rig.send(ref, "session.suspend_requested", {});
    await lost.kill();
    rig.startWorker({ mcp: till("at once") });
    const suspended = await rig.until(ref, "suspension", async () => {
      const found = await rig.store.log.getSession(ref);
      return found?.head.status === "suspended";
    });
    expect(eventsOf(suspended, "tool.result")[0]?.data.outcome).toBe("unknown");

    await rig.send(ref, "session.resume_requested", {});
    await rig.idle(ref);

    expect(charges).toHaveLength(1);
  });

  it("runs after any number of claims when it was never sent", async () => {
    rig.startWorker({ mcp: till("at once") });
    const ref = await rig.createSession("go", {
      model: "scripted:charge",
      tools: [pay("always_ask")],
      mcpServers,
    });
    const intent = eventsOf(await rig.idle(ref), "tool.intent")[0];
    await rig.send(ref, "session.suspend_requested", {});
    await rig.send(ref, "session.resume_requested", {});
    await rig.store.log.wake(ref);
    await rig.send(ref, "user.tool_confirmation", {
      tool_use_id: intent?.id ?? "",
      result: "allow",
    });

    const events = await rig.idle(ref, 2);

    expect(charges).toHaveLength(1);
    expect(eventsOf(events, "tool.result")[0]?.data).toMatchObject({
      content: "charged",
      outcome: "known",
    });
  });

  it("is in the log before it is sent", async () => {
    const seen: string[][] = [];
    rig.startWorker({
      mcp: () => ({
        ...till("at once")(),
        callTool: async () => {
          seen.push(typesOf(await rig.events(ref)));
          return { content: "charged", isError: false, outcome: "known" };
        },
      }),
    });
    const ref = await rig.createSession("go", {
      model: "scripted:charge",
      tools: [pay("always_allow")],
      mcpServers,
    });

    await rig.idle(ref);

    expect(seen.map((types) => types.at(-1))).toEqual(["tool.started"]);
  });
});
