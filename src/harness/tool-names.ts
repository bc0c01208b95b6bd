import { createHash } from "node:crypto";

/** The Messages API takes these names and no others. */
const SAFE = /^[a-zA-Z0-9_-]{1,128}$/;
const MAX_CHARS = 128;
const HASH_CHARS = 8;

/**
 * The name under which the model knows a tool of an MCP server: safe, and the same on every worker
 * and in every listing order. A name that had to be changed or cut carries a hash of the true one,
 * so that two that look alike after cleaning stay apart.
 */
export function mcpToolName(server: string, tool: string): string {
  const plain = `mcp__${server}__${tool}`;
  if (SAFE.test(plain)) return plain;
  const hash = createHash("sha256").update(`${server}\0${tool}`).digest("hex").slice(0, HASH_CHARS);
  const clean = plain.replaceAll(/[^a-zA-Z0-9_-]/g, "_");
  return `${clean.slice(0, MAX_CHARS - HASH_CHARS - 1)}_${hash}`;
}
