import { agentSpec } from "../../src/api/agent.ts";
import { agentSessionSpec } from "../../src/api/agent-session.ts";
import { credentialVaultSpec } from "../../src/api/credential-vault.ts";
import { harnessPoolSpec } from "../../src/api/harness-pool.ts";
import { API_VERSION } from "../../src/api/names.ts";
import { sandboxTemplateSpec } from "../../src/api/sandbox-template.ts";
import type {
  Agent,
  AgentSession,
  CredentialVault,
  HarnessPool,
  SandboxTemplate,
} from "../../src/operator/kinds.ts";

/** Objects of our kinds as the API server stores them: valid, with defaults. Give what the test is about. */

const CREATED = "2026-01-01T00:00:00Z";
export const CREATED_MS = Date.parse(CREATED);

function meta(name: string, namespace: string) {
  return {
    name,
    namespace,
    uid: `uid-of-${namespace}-${name}`,
    resourceVersion: "1",
    generation: 1,
    creationTimestamp: CREATED,
  };
}

export function anAgent(spec: object = {}, name = "coder"): Agent {
  return {
    apiVersion: API_VERSION,
    kind: "Agent",
    metadata: meta(name, "team-a"),
    spec: agentSpec.parse({
      model: "scripted",
      tools: [{ type: "agent_toolset_20260401" }],
      ...spec,
    }),
  };
}

export function aTemplate(spec: object = {}, name = "node"): SandboxTemplate {
  return {
    apiVersion: API_VERSION,
    kind: "SandboxTemplate",
    metadata: meta(name, "team-a"),
    spec: sandboxTemplateSpec.parse({ image: "drover-sandbox:dev", ...spec }),
  };
}

export function aSession(spec: object = {}, name = "hello"): AgentSession {
  return {
    apiVersion: API_VERSION,
    kind: "AgentSession",
    metadata: meta(name, "team-a"),
    spec: agentSessionSpec.parse({
      agentRef: { name: "coder" },
      sandboxTemplateRef: { name: "node" },
      messages: [{ text: "go" }],
      ...spec,
    }),
  };
}

export function aVault(spec: object = {}, name = "vault"): CredentialVault {
  return {
    apiVersion: API_VERSION,
    kind: "CredentialVault",
    metadata: meta(name, "team-a"),
    spec: credentialVaultSpec.parse({
      entries: [
        { name: "mcp", mcpServerUrl: "https://mcp.example.com/mcp", secretRef: { name: "token" } },
      ],
      ...spec,
    }),
  };
}

/** Registered, admits every namespace, two workers ready. */
export function aPool(spec: object = {}, name = "default"): HarnessPool {
  return {
    apiVersion: API_VERSION,
    kind: "HarnessPool",
    metadata: meta(name, "drover"),
    spec: harnessPoolSpec.parse({ allowedNamespaces: { from: "All" }, ...spec }),
    status: { code: "pool", readyReplicas: 2 },
  };
}
