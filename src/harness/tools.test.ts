import { describe, expect, it } from "@jest/globals";
import { aSnapshot } from "../../test/builders/snapshot.ts";
import type { AgentTool } from "../api/agent.ts";
import type { McpTool } from "./mcp-tools.ts";
import { mcpToolName } from "./tool-names.ts";
import { buildCatalog } from "./tools.ts";

function catalogOf(tools: AgentTool[], mcp: Record<string, string[]> = {}, template = true) {
  const snapshot = aSnapshot();
  const listed = new Map(
    Object.entries(mcp).map(([server, names]): [string, McpTool[]] => [
      server,
      names.map((name) => ({
        name,
        description: "",
        inputSchema: { type: "object" },
        readOnly: name.startsWith("get"),
      })),
    ]),
  );
  const { template: recipe, ...bare } = snapshot;
  const agent = { ...snapshot.agent, tools };
  return buildCatalog(
    template && recipe ? { ...bare, agent, template: recipe } : { agent },
    listed,
  );
}

const use = (name: string) => ({ type: "tool_use", id: "t", name, input: { a: 1 } });
const agentToolset: AgentTool = { type: "agent_toolset_20260401" };
const toolset = (more: Partial<AgentTool> = {}): AgentTool => ({
  type: "mcp_toolset",
  mcpServerName: "s",
  ...more,
});

describe("the tools of a session", () => {
  it("are those of the sandbox and the session's own, in a fixed order", () => {
    const names = catalogOf([agentToolset])
      .declarations()
      .map((tool) => tool.name);

    expect(names).toEqual(["bash", "edit", "glob", "grep", "read", "session_events", "write"]);
  });

  it("are not those of a sandbox when there is no template", () => {
    const names = catalogOf([agentToolset], {}, false)
      .declarations()
      .map((tool) => tool.name);

    expect(names).toEqual(["session_events"]);
  });

  it.each<[string, AgentTool, string]>([
    ["the toolset's default", agentToolset, "allow"],
    ["the default of MCP", toolset(), "ask"],
    ["defaultConfig", toolset({ defaultConfig: { permissionPolicy: "always_allow" } }), "allow"],
    [
      "the tool's own entry",
      toolset({
        defaultConfig: { permissionPolicy: "always_allow" },
        configs: [{ name: "get", permissionPolicy: "always_ask" }],
      }),
      "ask",
    ],
    ["a disabled toolset", toolset({ defaultConfig: { enabled: false } }), "deny"],
    [
      "a tool enabled in a disabled toolset",
      toolset({ defaultConfig: { enabled: false }, configs: [{ name: "get", enabled: true }] }),
      "ask",
    ],
  ])("follow %s", (_name, tool, want) => {
    const catalog = catalogOf([tool], { s: ["get"] });
    const name = tool.type === "mcp_toolset" ? "mcp__s__get" : "bash";

    const { intent, refusal } = catalog.intentOf(use(name));

    expect(intent.permission).toBe(want);
    expect(catalog.declarations().some((entry) => entry.name === name)).toBe(want !== "deny");
    expect(refusal !== undefined).toBe(want === "deny");
  });

  it("carry the true name and server of an MCP tool in the intent", () => {
    const catalog = catalogOf([toolset()], { s: ["a.b/c", "get"] });

    expect(catalog.intentOf(use(mcpToolName("s", "a.b/c"))).intent).toMatchObject({
      name: "a.b/c",
      hand: "s",
      target: "mcp",
      class: "at_most_once",
    });
    expect(catalog.intentOf(use("mcp__s__get")).intent.class).toBe("read_only");
  });

  it("refuse a name that does not exist and say which do", () => {
    const { intent, refusal } = catalogOf([agentToolset], {}, false).intentOf(use("rm"));

    expect(intent).toMatchObject({ name: "rm", target: "harness", permission: "deny" });
    expect(refusal).toBe('There is no tool "rm" in this session. Available: session_events.');
  });

  it("leave out one whose name is taken and report it", () => {
    const custom: AgentTool = {
      type: "custom",
      name: "mcp__s__get",
      description: "d",
      inputSchema: {},
    };

    const catalog = catalogOf([toolset(), custom], { s: ["get"] });

    expect(catalog.declarations()).toHaveLength(1);
    expect(catalog.problems).toEqual(['tool "mcp__s__get" is left out: its name is taken']);
  });
});

describe("the model's name of an MCP tool", () => {
  it("is always one the API takes, and different for tools that look alike", () => {
    const tools = ["a.b/c", "a-b/c", "a b c", "ü", "x".repeat(140), `${"x".repeat(140)}y`, "plain"];
    const names = tools.map((tool) => mcpToolName("server", tool));

    for (const name of names) expect(name).toMatch(/^[a-zA-Z0-9_-]{1,128}$/);
    expect(new Set(names).size).toBe(tools.length);
    expect(names.at(-1)).toBe("mcp__server__plain");
  });
});
