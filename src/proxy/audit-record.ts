import { hash as digest } from "node:crypto";
import { z } from "zod";
import { canonicalJson } from "../protocol/snapshot.ts";

/**
 * One request to a server, most with a credential, or its refusal (docs/design/security.md#audit).
 * Never an argument, a value or a query. Each record carries the hash of the one before it, and its
 * own over all its other fields. The fields have the names that they have in other lines of the log.
 */
export const auditRecord = z.object({
  /** Marks the line among other lines of the log. */
  audit: z.literal(true),
  level: z.literal("info"),
  process: z.string(),
  podUid: z.string(),
  /** Names this process' chain; `seq` counts from 1 in it. */
  chain: z.string(),
  seq: z.int().min(1),
  /** Empty in the first record of a chain. */
  prevHash: z.string(),
  time: z.string(),
  role: z.string(),
  namespace: z.string().optional(),
  sessionId: z.string().optional(),
  epoch: z.number().optional(),
  toolCallId: z.string().optional(),
  /** Name of the MCP server in the agent, of the repository, or `model`. */
  server: z.string().optional(),
  method: z.string().optional(),
  tool: z.string().optional(),
  /** Of the arguments as JSON with sorted keys, in hex. */
  argsSha256: z.string().optional(),
  /** What a push asks to change, its first 32: `<ref> <new object id>`. */
  refs: z.array(z.string()).optional(),
  /** `<vault>/<entry>`; absent when the server is asked without a credential. */
  credential: z.string().optional(),
  credentialVersion: z.string().optional(),
  /** `allow`: the other side was asked. */
  decision: z.enum(["allow", "deny"]),
  /** What allowed it, or the code of the error that refused it. */
  rule: z.string(),
  /** Code of the error by which an allowed use failed. */
  code: z.string().optional(),
  upstreamStatus: z.number().optional(),
  bytesIn: z.number(),
  bytesOut: z.number(),
  durationMs: z.number(),
  redactions: z.number(),
  /** SHA-256 in hex of all other fields as JSON, in the order in which they stand here. */
  hash: z.string(),
});

export type AuditRecord = z.output<typeof auditRecord>;

export function hashOf(record: Omit<AuditRecord, "hash">): string {
  return sha256(JSON.stringify(record));
}

/** SHA-256 in hex of the value as JSON with sorted keys. */
export function jsonHash(value: unknown): string {
  return sha256(canonicalJson(value ?? null));
}

function sha256(text: string): string {
  return digest("sha256", text, "hex");
}
