import type { SessionSnapshot } from "../../../protocol/snapshot.ts";
import { AppError } from "../../../runtime/errors.ts";
import type { Message } from "./messages.ts";

/**
 * What a session may do with an MCP server, decided from its pinned agent alone. Pure: the same
 * `decideTool` filters `tools/list` and gates `tools/call`.
 */

type AgentTools = SessionSnapshot["agent"]["tools"];

export type ToolDecision =
  | { permission: "allow" | "ask" }
  | { permission: "deny"; reason: "no_toolset" | "disabled" };

/** Names are compared exactly. New tools are on and ask, as the API has it, unless the agent says else. */
export function decideTool(tools: AgentTools, server: string, tool: string): ToolDecision {
  const toolset = tools?.find(
    (candidate) => candidate.type === "mcp_toolset" && candidate.mcpServerName === server,
  );
  if (toolset === undefined) return { permission: "deny", reason: "no_toolset" };
  const own = toolset.configs?.find((config) => config.name === tool);
  const enabled = own?.enabled ?? toolset.defaultConfig?.enabled ?? true;
  if (!enabled) return { permission: "deny", reason: "disabled" };
  const policy = own?.permissionPolicy ?? toolset.defaultConfig?.permissionPolicy ?? "always_ask";
  return { permission: policy === "always_allow" ? "allow" : "ask" };
}

/** Throws FORBIDDEN unless the call may be made now. */
export function checkCall(tools: AgentTools, server: string, tool: string): void {
  const decision = decideTool(tools, server, tool);
  switch (decision.permission) {
    case "allow":
      return;
    case "ask":
      // Fail closed: nothing can prove to the proxy yet that somebody confirmed.
      throw new AppError(
        "FORBIDDEN",
        `tool "${tool}" of MCP server "${server}" needs a person's confirmation, which cannot be ` +
          "given yet; its permissionPolicy must be always_allow",
      );
    case "deny":
      throw new AppError(
        "FORBIDDEN",
        decision.reason === "no_toolset"
          ? `the agent has no mcp_toolset for MCP server "${server}"`
          : `tool "${tool}" of MCP server "${server}" is not enabled for this agent`,
      );
  }
}

/** A copy of a `tools/list` result with the tools the model may be offered. */
export function filterTools(result: unknown, tools: AgentTools, server: string): unknown {
  if (!isRecord(result) || !Array.isArray(result["tools"])) return result;
  const listed: unknown[] = result["tools"];
  return {
    ...result,
    tools: listed.filter(
      (tool) =>
        isRecord(tool) &&
        typeof tool["name"] === "string" &&
        decideTool(tools, server, tool["name"]).permission !== "deny",
    ),
  };
}

/** Tools and what is needed to reach them; resources and prompts have no policy, so they stay shut. */
const REQUESTS = new Set(["initialize", "ping", "server/discover", "tools/list", "tools/call"]);
const NOTIFICATIONS = new Set([
  "notifications/initialized",
  "notifications/cancelled",
  "notifications/progress",
]);

export function isPassedMethod(message: Message): boolean {
  switch (message.kind) {
    case "request":
      return REQUESTS.has(message.method);
    case "notification":
      return NOTIFICATIONS.has(message.method);
    case "response":
      return true;
  }
}

/** The only request a server may make of the harness; sampling, roots and elicitation are refused. */
export function isPassedServerRequest(method: string): boolean {
  return method === "ping";
}

const REFUSED_CAPABILITIES = ["sampling", "roots", "elicitation", "tasks"];
const CAPABILITIES_META = "io.modelcontextprotocol/clientCapabilities";

/**
 * The message without the client capabilities that the proxy refuses, in the place where either era
 * of the protocol states them; so no server is told of something it will not get.
 */
export function withoutRefusedCapabilities(message: unknown): unknown {
  if (!isRecord(message) || !isRecord(message["params"])) return message;
  const params = { ...message["params"] };
  if (message["method"] === "initialize" && isRecord(params["capabilities"])) {
    params["capabilities"] = without(params["capabilities"], REFUSED_CAPABILITIES);
  }
  const meta = params["_meta"];
  if (isRecord(meta) && isRecord(meta[CAPABILITIES_META])) {
    params["_meta"] = {
      ...meta,
      [CAPABILITIES_META]: without(meta[CAPABILITIES_META], REFUSED_CAPABILITIES),
    };
  }
  return { ...message, params };
}

function without(record: Record<string, unknown>, names: readonly string[]) {
  return Object.fromEntries(Object.entries(record).filter(([name]) => !names.includes(name)));
}

export function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
