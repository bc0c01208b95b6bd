import { agentSpec } from "../../src/api/agent.ts";
import { sandboxTemplateSpec } from "../../src/api/sandbox-template.ts";
import { revisionOf, type SessionSnapshot } from "../../src/protocol/snapshot.ts";

/** A valid snapshot; give only what the test is about. */
export function aSnapshot(changes: Partial<SessionSnapshot> = {}): SessionSnapshot {
  const agent = agentSpec.parse({ model: "scripted", tools: [{ type: "agent_toolset_20260401" }] });
  const template = sandboxTemplateSpec.parse({ image: "drover-sandbox:dev" });
  return {
    version: 1,
    sessionId: "sesn_poolab00_00000000000000000000000000",
    tenant: "team-a",
    object: { name: "hello", uid: "7f0f7a6e-0000-4000-8000-000000000001" },
    agent: { ...agent, name: "coder", revision: revisionOf(agent) },
    template: { ...template, name: "node", revision: revisionOf(template) },
    vaults: [],
    repositories: [],
    pool: { name: "default", uid: "7f0f7a6e-0000-4000-8000-0000000000aa", code: "pool" },
    ...changes,
  };
}

/** The template part of a snapshot, with some fields of its own. */
export function aTemplateSnapshot(
  changes: Partial<NonNullable<SessionSnapshot["template"]>> = {},
): NonNullable<SessionSnapshot["template"]> {
  const { template } = aSnapshot();
  if (template === undefined) throw new Error("aSnapshot has a template");
  return { ...template, ...changes };
}
