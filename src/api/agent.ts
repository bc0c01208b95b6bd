import { z } from "zod";
import {
  conditions,
  entryName,
  formatted,
  httpUrl,
  keyedBy,
  objectName,
  observedGeneration,
  rules,
  type ValidationRule,
} from "./fields.ts";

export const AGENT_TOOLSET = "agent_toolset_20260401";
const TOOL_TYPES = [AGENT_TOOLSET, "mcp_toolset", "custom"] as const;

/** Names that the agent toolset takes; a custom tool cannot have one of them. */
const BUILT_IN_TOOLS = ["bash", "read", "write", "edit", "glob", "grep", "session_events"] as const;

const builtInTools = JSON.stringify(BUILT_IN_TOOLS);

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

const toolRules: ValidationRule[] = [
  {
    rule: "(self.type == 'mcp_toolset') == has(self.mcpServerName)",
    message: "`mcpServerName` must be set for type `mcp_toolset`, and for no other",
  },
  {
    rule: "self.type != 'custom' || (has(self.name) && has(self.description) && has(self.inputSchema))",
    message: "`name`, `description` and `inputSchema` must be set for type `custom`",
  },
  {
    rule: "self.type == 'custom' || (!has(self.name) && !has(self.description) && !has(self.inputSchema))",
    message: "`name`, `description` and `inputSchema` must not be set for a toolset",
  },
  {
    rule: "self.type != 'custom' || (!has(self.defaultConfig) && !has(self.configs))",
    message: "`defaultConfig` and `configs` must not be set for type `custom`",
  },
  {
    rule: `!has(self.name) || !(self.name.startsWith('mcp__') || self.name in ${builtInTools})`,
    message: `\`name\` must not begin with \`mcp__\` and must not be one of ${BUILT_IN_TOOLS.join(", ")}`,
  },
  {
    rule: `self.type != '${AGENT_TOOLSET}' || !has(self.configs) || self.configs.all(c, c.name in ${builtInTools})`,
    message: `names in \`configs\` of \`${AGENT_TOOLSET}\` must be among ${BUILT_IN_TOOLS.join(", ")}`,
  },
];

const agentTool = z
  .object({
    type: z
      .enum(TOOL_TYPES)
      .describe(
        "`agent_toolset_20260401`: bash, read, write, edit, glob, grep in the sandbox and session_events. " +
          "`mcp_toolset`: the tools of one MCP server. `custom`: a tool the session's client runs.",
      ),
    mcpServerName: z
      .string()
      .max(63)
      .optional()
      .describe("For `mcp_toolset`: a name from `mcpServers`."),
    name: formatted(
      128,
      "^[A-Za-z0-9_-]+$",
      "must be the name of a tool: letters, digits, `_` and `-`",
    )
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
    configs: z
      .array(toolConfig)
      .max(64)
      .optional()
      .meta(keyedBy("name"))
      .describe("Settings by tool name."),
  })
  .meta(rules(...toolRules))
  .describe("One tool or toolset that the model may use.");

const mcpServer = z
  .object({
    name: entryName("Name by which toolsets refer to this server."),
    url: httpUrl().describe(
      "Streamable HTTP endpoint. Plain http only for servers the HarnessPool lists in `inClusterServers`.",
    ),
  })
  .describe("A remote MCP server.");

/** What an agent is: shared by the kind Agent and the inline form in AgentSession. */
export const agentSpec = z
  .object({
    model: formatted(128, "^[^\\s]+$", "must be the id of a model, without white space").describe(
      "Model id, as the model endpoint knows it.",
    ),
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
      .meta(
        rules(
          {
            rule: `self.filter(t, t.type == '${AGENT_TOOLSET}').size() <= 1`,
            message: `\`${AGENT_TOOLSET}\` must be declared at most once`,
          },
          {
            rule: "self.all(t, !has(t.mcpServerName) || self.exists_one(u, has(u.mcpServerName) && u.mcpServerName == t.mcpServerName))",
            message: "there must be at most one `mcp_toolset` for each `mcpServerName`",
          },
          {
            rule: "self.all(t, !has(t.name) || self.exists_one(u, has(u.name) && u.name == t.name))",
            message: "the `name` of each `custom` tool must be unique",
          },
        ),
      )
      .describe("Tools the model may use; none when absent."),
    mcpServers: z
      .array(mcpServer)
      .max(20)
      .optional()
      .meta(keyedBy("name"))
      .describe("MCP servers of the toolsets."),
  })
  .meta(
    rules(
      {
        rule: "!has(self.tools) || self.tools.all(t, !has(t.mcpServerName) || (has(self.mcpServers) && self.mcpServers.exists(s, s.name == t.mcpServerName)))",
        message:
          "`mcpServerName` of each `mcp_toolset` must be the `name` of an entry of `mcpServers`",
      },
      {
        rule: "self.maxOutputTokens < self.contextWindowTokens",
        message: "`maxOutputTokens` must be less than `contextWindowTokens`",
      },
    ),
  )
  .describe("What the agent is: its model, its instructions and its tools.");

export const agentStatus = z
  .object({ observedGeneration, conditions })
  .describe("Whether the agent can be used.");

export type AgentSpec = z.output<typeof agentSpec>;
export type AgentTool = z.output<typeof agentTool>;

export const agentRefField = z
  .object({ name: objectName("Agent") })
  .describe("An Agent in this namespace.");
