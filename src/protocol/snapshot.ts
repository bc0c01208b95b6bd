import { createHash } from "node:crypto";
import { z } from "zod";
import { agentSpec } from "../api/agent.ts";
import { sessionRepository } from "../api/agent-session.ts";
import { credentialVaultSpec } from "../api/credential-vault.ts";
import { sandboxTemplateSpec } from "../api/sandbox-template.ts";
import { isNumberText, withPlainNumbers } from "./exact-json.ts";

/**
 * What a session was made from, frozen at its creation: later edits of an Agent or template change
 * new sessions only. Written by `createSession`; harness and proxy can only read it.
 */
const sessionSnapshot = z.object({
  version: z.literal(1),
  sessionId: z.string(),
  /** Kubernetes namespace of the session. */
  tenant: z.string(),
  /** The AgentSession it belongs to; absent for sessions made through the API. */
  object: z.object({ name: z.string(), uid: z.string() }).optional(),
  agent: agentSpec.extend({ name: z.string(), revision: z.string() }),
  template: sandboxTemplateSpec.extend({ name: z.string(), revision: z.string() }).optional(),
  vaults: z.array(credentialVaultSpec.extend({ name: z.string(), uid: z.string() })),
  repositories: z.array(sessionRepository).default([]),
  pool: z.object({ name: z.string(), uid: z.string(), code: z.string() }),
});

export type SessionSnapshot = z.output<typeof sessionSnapshot>;

/** First 16 hex digits of the SHA-256 of the canonical JSON (keys sorted): a revision name. */
export function revisionOf(value: unknown): string {
  return createHash("sha256").update(canonicalJson(value)).digest("hex").slice(0, 16);
}

/**
 * JSON with sorted keys and no undefined members: equal values give equal text. A number counts by its
 * value, so that a reader that keeps its text and one that does not come to the same.
 */
export function canonicalJson(value: unknown): string {
  if (isNumberText(value)) return JSON.stringify(withPlainNumbers(value));
  if (Array.isArray(value)) return `[${value.map(canonicalJson).join(",")}]`;
  if (typeof value === "object" && value !== null) {
    const members = Object.entries(value)
      .filter(([, member]) => member !== undefined)
      .toSorted(([a], [b]) => (a < b ? -1 : 1))
      .map(([key, member]) => `${JSON.stringify(key)}:${canonicalJson(member)}`);
    return `{${members.join(",")}}`;
  }
  return JSON.stringify(value) ?? "null";
}
