import { z } from "zod";
import { objectName } from "./fields.ts";

const permissionPolicy = z
  .enum(["always_allow", "always_ask"])
  .describe("Whether a call runs at once or waits for a person's confirmation.");

const toolConfig = z
  .object({
    name: z.string().min(1).max(128).describe("The tool's name inside its toolset."),
    enabled: z.boolean().optional().describe("Whether the model is offered this tool."),
    permissionPolicy: permissionPolicy.optional(),
  })
  .describe("Settings of one tool of a toolset.");

const toolDefaults = z
  .object({
    enabled: z.boolean().optional().describe("Whether tools not listed in `configs` are offered."),
    permissionPolicy: permissionPolicy.optional(),
  })
  .describe("Settings of every tool of the toolset that `configs` does not name.");

export const agentTool = z
  .object({
    type: z
      .enum(["agent_toolset_20260401", "mcp_toolset", "custom"])
      .describe(
        "`agent_toolset_20260401`: bash, read, write, edit, glob, grep in the sandbox and session_events. " +
          "`mcp_toolset`: the tools of one MCP server. `custom`: a tool the session's client runs.",
      ),
    mcpServerName: z
      .string()
      .min(1)
      .max(255)
      .optional()
      .describe("For `mcp_toolset`: a name from `mcpServers`."),
    name: z
      .string()
      .min(1)
      .max(128)
      .regex(/^[A-Za-z0-9_-]+$/)
      .optional()
      .describe("For `custom`: the tool's name."),
    description: z
      .string()
      .max(4096)
      .optional()
      .describe("For `custom`: what the tool does, for the model."),
    inputSchema: z
      .looseObject({})
      .optional()
      .describe("For `custom`: JSON schema (type object) of the input."),
    defaultConfig: toolDefaults.optional(),
    configs: z.array(toolConfig).max(64).optional().describe("Settings by tool name."),
  })
  .describe("One tool or toolset that the model may use.");

export const mcpServer = z
  .object({
    name: z
      .string()
      .min(1)
      .max(63)
      .regex(/^[a-z0-9]([a-z0-9-]*[a-z0-9])?$/)
      .describe("Name by which toolsets refer to this server."),
    url: z
      .string()
      .min(1)
      .max(2048)
      .regex(/^https?:\/\/[^\s]+$/)
      .describe(
        "Streamable HTTP endpoint. Plain http only for servers the HarnessPool lists in `inClusterServers`.",
      ),
  })
  .describe("A remote MCP server.");

/** What an agent is: shared by the kind Agent and the inline form in AgentSession. */
export const agentSpec = z
  .object({
    model: z.string().min(1).max(128).describe("Model id, as the model endpoint knows it."),
    system: z.string().max(32_768).optional().describe("System prompt."),
    maxOutputTokens: z
      .int()
      .min(1)
      .max(200_000)
      .default(8192)
      .describe("Largest answer of one model request, in tokens."),
    contextWindowTokens: z
      .int()
      .min(2000)
      .max(10_000_000)
      .default(200_000)
      .describe("The model's context window, in tokens; history is compacted before it is full."),
    tools: z
      .array(agentTool)
      .max(64)
      .optional()
      .describe("Tools the model may use; none when absent."),
    mcpServers: z.array(mcpServer).max(20).optional().describe("MCP servers of the toolsets."),
  })
  .describe("What the agent is: its model, its instructions and its tools.");

export type AgentSpec = z.output<typeof agentSpec>;
export type AgentTool = z.output<typeof agentTool>;

export const agentRefField = z
  .object({ name: objectName("Agent") })
  .describe("An Agent in this namespace.");
