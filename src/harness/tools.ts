import type { AgentTool } from "../api/agent.ts";
import { inputHash } from "../protocol/sandbox-api.ts";
import { sandboxToolDeclarations } from "../protocol/sandbox-tools.ts";
import type { SessionEventData } from "../protocol/session-event.ts";
import type { SessionSnapshot } from "../protocol/snapshot.ts";
import type { McpTool } from "./mcp-tools.ts";
import type { Block, ModelTool } from "./model.ts";
import { type ToolPolicy, toolPolicy } from "./permission.ts";
import { SANDBOX_HAND } from "./sandbox-hands.ts";
import { SESSION_EVENTS_TOOL, sessionEventsDeclaration } from "./session-events-tool.ts";
import { mcpToolName } from "./tool-names.ts";
import { mendedSchema } from "./tool-schema.ts";

type Intent = SessionEventData<"tool.intent">;

/** One tool that the model may name, and where a call of it goes. */
interface CatalogEntry extends Pick<Intent, "target" | "class" | "hand" | "name"> {
  declaration: ModelTool;
  policy: ToolPolicy;
}

/** Which tools a session has. Pure: the same snapshot and listings give the same catalog. */
export class ToolCatalog {
  readonly #entries: ReadonlyMap<string, CatalogEntry>;
  /** Tools that were left out, one sentence each. */
  readonly problems: readonly string[];

  constructor(entries: readonly CatalogEntry[]) {
    const byName = new Map<string, CatalogEntry>();
    const problems: string[] = [];
    for (const entry of entries) {
      const { name } = entry.declaration;
      if (byName.has(name)) problems.push(`tool "${entry.name}" is left out: its name is taken`);
      else byName.set(name, entry);
    }
    this.#entries = byName;
    this.problems = problems;
  }

  /** In a fixed order, so that the prompt cache holds. */
  declarations(): ModelTool[] {
    return [...this.#entries.values()]
      .filter((entry) => entry.policy !== "off")
      .map((entry) => entry.declaration)
      .toSorted((a, b) => (a.name < b.name ? -1 : 1));
  }

  /** The intent for one `tool_use` block, and why it is refused if it is. */
  intentOf(block: Block): { intent: Intent; refusal?: string } {
    const called = String(block["name"]);
    const entry = this.#entries.get(called);
    const input = isRecord(block["input"]) ? block["input"] : {};
    const intent: Intent = {
      id: String(block["id"]),
      name: entry?.name ?? called,
      target: entry?.target ?? "harness",
      ...(entry?.hand === undefined ? {} : { hand: entry.hand }),
      input,
      inputHash: inputHash(entry?.name ?? called, input),
      class: entry?.class ?? "at_most_once",
      permission: entry === undefined || entry.policy === "off" ? "deny" : entry.policy,
    };
    if (intent.permission !== "deny") return { intent };
    const names = this.declarations().map((tool) => tool.name);
    const refusal = `There is no tool "${called}" in this session. Available: ${names.join(", ") || "none"}.`;
    return { intent, refusal };
  }
}

export function buildCatalog(
  snapshot: Pick<SessionSnapshot, "agent" | "template">,
  mcpTools: ReadonlyMap<string, readonly McpTool[]>,
): ToolCatalog {
  const entries = (snapshot.agent.tools ?? []).flatMap((tool) => {
    switch (tool.type) {
      case "agent_toolset_20260401":
        return agentToolset(tool, snapshot.template !== undefined);
      case "mcp_toolset":
        return mcpToolset(tool, mcpTools.get(tool.mcpServerName ?? "") ?? []);
      case "custom":
        return customTool(tool);
    }
  });
  return new ToolCatalog(entries);
}

const READ_ONLY = new Set(["read", "glob", "grep"]);

/** Without a template there is no sandbox, and so none of its tools. */
function agentToolset(toolset: AgentTool, hasSandbox: boolean): CatalogEntry[] {
  const sandboxTools = hasSandbox ? sandboxToolDeclarations() : [];
  return [
    ...sandboxTools.map(
      (declaration): CatalogEntry => ({
        declaration,
        name: declaration.name,
        target: "sandbox",
        hand: SANDBOX_HAND,
        class: READ_ONLY.has(declaration.name) ? "read_only" : "idempotent",
        policy: toolPolicy(toolset, declaration.name),
      }),
    ),
    {
      declaration: sessionEventsDeclaration,
      name: SESSION_EVENTS_TOOL,
      target: "harness",
      class: "read_only",
      policy: toolPolicy(toolset, SESSION_EVENTS_TOOL),
    },
  ];
}

function mcpToolset(toolset: AgentTool, tools: readonly McpTool[]): CatalogEntry[] {
  const server = toolset.mcpServerName ?? "";
  return tools.map((tool) => ({
    declaration: {
      name: mcpToolName(server, tool.name),
      description: tool.description,
      input_schema: tool.inputSchema,
    },
    name: tool.name,
    target: "mcp",
    hand: server,
    class: tool.readOnly ? "read_only" : "at_most_once",
    policy: toolPolicy(toolset, tool.name),
  }));
}

function customTool(tool: AgentTool): CatalogEntry[] {
  if (tool.name === undefined) return [];
  const mended = mendedSchema(tool.inputSchema);
  const [schema, said] =
    mended.kind === "fits" ? [mended.schema, mended.said] : [{ type: "object" as const }, []];
  const declaration: ModelTool = {
    name: tool.name,
    description: [tool.description ?? "", ...said].filter((text) => text !== "").join("\n\n"),
    input_schema: schema,
  };
  return [
    { declaration, name: tool.name, target: "custom", class: "at_most_once", policy: "allow" },
  ];
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
