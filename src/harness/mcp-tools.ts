import { headAndTail } from "./safe-text.ts";
import { mendedSchema, type ObjectSchema } from "./tool-schema.ts";

/**
 * Reads the tools that an MCP server lists, page by page, and keeps what a model can use. A server may
 * describe its tools as long as it likes; what is kept of it is bounded here. Pure but for its own state.
 */

export interface McpTool {
  name: string;
  description: string;
  inputSchema: ObjectSchema;
  /** The server says that calls change nothing: they may be repeated. */
  readOnly: boolean;
}

export interface ToolListing {
  tools: McpTool[];
  /** What is left out, one sentence each, for the people who read the session. */
  problems: string[];
}

export const LIST_LIMITS = {
  pages: 64,
  tools: 1024,
  /** Of all pages, as they came. */
  readChars: 16 * 1024 * 1024,
  /** Of what is kept: it is part of every request of the session. */
  keptChars: 1024 * 1024,
  descriptionChars: 8192,
  nameChars: 256,
  cursorChars: 4096,
} as const;
const MAX_PROBLEMS = 20;

export class ToolList {
  readonly #server: string;
  readonly #tools: McpTool[] = [];
  readonly #problems: string[] = [];
  #pages = 0;
  #read = 0;
  #kept = 0;

  constructor(server: string) {
    this.#server = server;
  }

  /** Takes one page; the cursor of the next, or undefined when the list ends here. */
  add(page: Record<string, unknown>): string | undefined {
    this.#pages += 1;
    const { tools, nextCursor } = page;
    for (const tool of Array.isArray(tools) ? tools : []) {
      if (!this.#hasRoom()) return undefined;
      this.#read += (JSON.stringify(tool) ?? "").length;
      if (isRecord(tool)) this.#addTool(tool);
    }
    if (typeof nextCursor !== "string" || nextCursor === "") return undefined;
    if (nextCursor.length > LIST_LIMITS.cursorChars || this.#pages >= LIST_LIMITS.pages) {
      this.#problem(`its list has more than ${LIST_LIMITS.pages} pages; the rest is left out`);
      return undefined;
    }
    return this.#hasRoom() ? nextCursor : undefined;
  }

  get listing(): ToolListing {
    return { tools: this.#tools, problems: this.#problems };
  }

  #hasRoom(): boolean {
    const { readChars, tools } = LIST_LIMITS;
    if (this.#read <= readChars && this.#tools.length < tools) return true;
    this.#problem(
      `it describes more than ${tools} tools, or more than ${readChars} characters; the rest is left out`,
    );
    return false;
  }

  #addTool(tool: Record<string, unknown>): void {
    const { name, title, description, inputSchema, annotations } = tool;
    if (typeof name !== "string" || name === "" || name.length > LIST_LIMITS.nameChars) {
      this.#problem("a tool is left out: it has no usable name");
      return;
    }
    const mended = mendedSchema(inputSchema);
    if (mended.kind === "unfit") {
      this.#problem(`tool "${name}" is left out: ${mended.why}`);
      return;
    }
    const told = [firstText(description, title), ...mended.said].filter((text) => text !== "");
    const kept: McpTool = {
      name,
      description: headAndTail(told.join("\n\n"), LIST_LIMITS.descriptionChars).toWellFormed(),
      inputSchema: mended.schema,
      readOnly: isRecord(annotations) && annotations["readOnlyHint"] === true,
    };
    const size = JSON.stringify(kept).length;
    if (this.#kept + size > LIST_LIMITS.keptChars) {
      this.#problem(
        `tool "${name}" is left out: all tools together are described in more than ${LIST_LIMITS.keptChars} characters`,
      );
      return;
    }
    this.#kept += size;
    this.#tools.push(kept);
  }

  #problem(what: string): void {
    const text = `MCP server "${this.#server}": ${what}`;
    if (this.#problems.length < MAX_PROBLEMS && !this.#problems.includes(text)) {
      this.#problems.push(text);
    }
  }
}

function firstText(...candidates: unknown[]): string {
  return candidates.find((text) => typeof text === "string" && text !== "")?.toString() ?? "";
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
