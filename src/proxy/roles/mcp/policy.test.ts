import { describe, expect, it } from "@jest/globals";
import type { SessionSnapshot } from "../../../protocol/snapshot.ts";
import { checkCall, decideTool, filterTools, withoutRefusedCapabilities } from "./policy.ts";

type AgentTools = SessionSnapshot["agent"]["tools"];

const tools: AgentTools = [
  { type: "agent_toolset_20260401" },
  {
    type: "mcp_toolset",
    mcpServerName: "docs",
    defaultConfig: { permissionPolicy: "always_allow" },
    configs: [
      { name: "delete", enabled: false },
      { name: "publish", permissionPolicy: "always_ask" },
    ],
  },
  {
    type: "mcp_toolset",
    mcpServerName: "shut",
    defaultConfig: { enabled: false },
    configs: [{ name: "open", enabled: true, permissionPolicy: "always_allow" }],
  },
  { type: "mcp_toolset", mcpServerName: "bare" },
];

describe("decideTool", () => {
  it.each([
    ["docs", "search", { permission: "allow" }],
    ["docs", "Delete", { permission: "allow" }],
    ["docs", "delete", { permission: "deny", reason: "disabled" }],
    ["docs", "publish", { permission: "ask" }],
    ["shut", "search", { permission: "deny", reason: "disabled" }],
    ["shut", "open", { permission: "allow" }],
    ["bare", "search", { permission: "ask" }],
    ["other", "search", { permission: "deny", reason: "no_toolset" }],
  ] as const)("server %s, tool %s", (server, tool, decision) => {
    expect(decideTool(tools, server, tool)).toEqual(decision);
  });

  it("denies everything to an agent without tools", () => {
    expect(decideTool(undefined, "docs", "search").permission).toBe("deny");
  });
});

describe("checkCall", () => {
  it("lets an allowed call through", () => {
    expect(() => checkCall(tools, "docs", "search")).not.toThrow();
  });

  it.each([
    ["delete", "is not enabled"],
    ["publish", "confirmation"],
  ])("refuses %s and says why", (tool, says) => {
    expect(() => checkCall(tools, "docs", tool)).toThrow(
      expect.objectContaining({ code: "FORBIDDEN", message: expect.stringContaining(says) }),
    );
  });
});

describe("filterTools", () => {
  it("leaves out what may not be called, and keeps the rest as it is", () => {
    const result = {
      tools: [{ name: "search", inputSchema: {} }, { name: "delete" }, { name: "publish" }, 7, {}],
      nextCursor: "c",
    };

    expect(filterTools(result, tools, "docs")).toEqual({
      tools: [{ name: "search", inputSchema: {} }, { name: "publish" }],
      nextCursor: "c",
    });
  });

  it("passes on a result that lists no tools", () => {
    expect(filterTools({ other: 1 }, tools, "docs")).toEqual({ other: 1 });
  });
});

describe("withoutRefusedCapabilities", () => {
  it("takes sampling, roots and elicitation out of an initialize request", () => {
    const message = {
      method: "initialize",
      params: {
        capabilities: { sampling: {}, roots: {}, elicitation: {}, experimental: { a: 1 } },
      },
    };

    expect(withoutRefusedCapabilities(message)).toEqual({
      method: "initialize",
      params: { capabilities: { experimental: { a: 1 } } },
    });
  });

  it("takes them out of the metadata of a modern request", () => {
    const key = "io.modelcontextprotocol/clientCapabilities";
    const message = {
      method: "tools/call",
      params: { name: "x", _meta: { [key]: { roots: {} }, other: 1 } },
    };

    expect(withoutRefusedCapabilities(message)).toEqual({
      method: "tools/call",
      params: { name: "x", _meta: { [key]: {}, other: 1 } },
    });
  });
});
