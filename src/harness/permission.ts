import type { AgentTool } from "../api/agent.ts";

/** `off`: not offered to the model; a call is refused all the same if the model makes one. */
export type ToolPolicy = "allow" | "ask" | "off";

/**
 * The setting of one tool of a toolset: its own entry in `configs` wins over `defaultConfig`, which
 * wins over the toolset's default (managed-agents-api D.1): the agent toolset allows, tools of MCP
 * servers ask.
 */
export function toolPolicy(toolset: AgentTool, name: string): ToolPolicy {
  const own = toolset.configs?.find((config) => config.name === name);
  const enabled = own?.enabled ?? toolset.defaultConfig?.enabled ?? true;
  if (!enabled) return "off";
  const fallback = toolset.type === "mcp_toolset" ? "always_ask" : "always_allow";
  const policy = own?.permissionPolicy ?? toolset.defaultConfig?.permissionPolicy ?? fallback;
  return policy === "always_ask" ? "ask" : "allow";
}
