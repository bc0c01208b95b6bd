import {
  type AgentToolContext,
  betaEditTool,
  betaGlobTool,
  betaReadTool,
  betaWriteTool,
} from "@anthropic-ai/sdk/tools/agent-toolset/node";
import { sandboxTools } from "../../protocol/sandbox-tools.ts";
import type { Tool } from "./tool.ts";

/** File tools answer in milliseconds; only a hung volume or a hostile pattern takes longer. */
const FILE_DEADLINE_MS = 60_000;

type SdkTool = ReturnType<typeof betaReadTool>;

/** `read`, `write`, `edit` and `glob` are the SDK's, confined to the workspace, links resolved. */
export function createFileTools(workspace: string): Tool[] {
  const context: AgentToolContext = { workdir: workspace };
  return [
    adapt("read", betaReadTool(context), "(the file or range is empty)"),
    adapt("write", betaWriteTool(context), ""),
    adapt("edit", betaEditTool(context), ""),
    adapt("glob", betaGlobTool(context), ""),
  ];
}

function adapt(name: "read" | "write" | "edit" | "glob", sdk: SdkTool, whenEmpty: string): Tool {
  return {
    name,
    input: sandboxTools[name].input,
    // Two edits of one file in the same turn must not overwrite each other.
    queue: name === "write" || name === "edit" ? "files" : undefined,
    deadlineMs: FILE_DEADLINE_MS,
    run: async (input, { output }) => {
      try {
        const text = await sdk.run(input);
        if (typeof text === "string") output.write(Buffer.from(text));
        return { isError: false, notes: text === "" ? [whenEmpty] : [] };
      } catch (error) {
        // The SDK's ToolError, told apart by name: two copies of the class may be loaded.
        if (!Error.isError(error) || error.name !== "ToolError") throw error;
        return { isError: true, notes: [error.message] };
      }
    },
    clean: (text) => text,
    close: () => Promise.resolve(),
  };
}
