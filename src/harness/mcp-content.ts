import { parseExact } from "../protocol/exact-json.ts";
import { canonicalJson } from "../protocol/snapshot.ts";

/** What a model reads of the result of an MCP tool, which may hold more than text. Pure. */

/** Of a name or an address in a note. */
const NOTE_CHARS = 500;

export function contentText(result: Record<string, unknown>): string {
  const blocks: unknown[] = Array.isArray(result["content"]) ? result["content"] : [];
  const parts = blocks.map((block) =>
    isRecord(block) ? blockText(block) : "[unreadable content]",
  );
  const structured = result["structuredContent"];
  if (structured !== undefined && !parts.some((part) => says(part, structured))) {
    parts.push(JSON.stringify(structured));
  }
  return parts.filter((part) => part.trim() !== "").join("\n");
}

function blockText(block: Record<string, unknown>): string {
  switch (block["type"]) {
    case "text":
      return textOf(block["text"]);
    case "image":
    case "audio":
      return `[${note(block["type"])} ${dataNote(block, block["data"])}, not shown]`;
    case "resource":
      return isRecord(block["resource"]) ? resourceText(block["resource"]) : "[an empty resource]";
    case "resource_link": {
      const { uri, name, title, mimeType, description } = block;
      const facts = [note(mimeType), note(description)].filter((fact) => fact !== "");
      return `[link to ${note(title) || note(name) || "a resource"}: ${note(uri)}${facts.map((fact) => `; ${fact}`).join("")}]`;
    }
    default:
      return `[${note(block["type"]) || "unknown"} content is not shown]`;
  }
}

function resourceText(resource: Record<string, unknown>): string {
  const { uri, mimeType, text, blob } = resource;
  if (typeof text === "string") {
    const kind = note(mimeType) === "" ? "" : ` (${note(mimeType)})`;
    return `[resource ${note(uri)}${kind}]\n${text}`;
  }
  return `[resource ${note(uri)}: ${dataNote(resource, blob)}, not shown]`;
}

function dataNote({ mimeType }: Record<string, unknown>, base64: unknown): string {
  const bytes = Math.floor((textOf(base64).replace(/={1,2}$/, "").length * 3) / 4);
  return `${note(mimeType) || "data"}, ${bytes} bytes`;
}

/** True when a text block is the structured content written as JSON, as servers should do it. */
function says(part: string, structured: unknown): boolean {
  const start = part.trimStart()[0];
  if (start !== "{" && start !== "[") return false;
  try {
    return canonicalJson(parseExact<unknown>(part)) === canonicalJson(structured);
  } catch {
    return false;
  }
}

/** One line of it. */
function note(value: unknown): string {
  return textOf(value).replaceAll(/\s+/g, " ").trim().slice(0, NOTE_CHARS);
}

function textOf(value: unknown): string {
  return typeof value === "string" ? value : "";
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
