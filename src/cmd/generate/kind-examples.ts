import { AGENT_TOOLSET } from "../../api/agent.ts";
import type { KindName } from "../../api/kinds.ts";
import { API_VERSION } from "../../api/names.ts";

/** The smallest useful object of each kind, as `docs/kinds` shows it; tests apply them. */
export const KIND_EXAMPLES: Readonly<Record<KindName, Record<string, unknown>>> = {
  Agent: {
    apiVersion: API_VERSION,
    kind: "Agent",
    metadata: { name: "coder" },
    spec: {
      model: "claude-sonnet-4-5",
      system: "You repair programs. Run the tests before you say that you are done.",
      tools: [{ type: AGENT_TOOLSET }],
    },
  },
  AgentSession: {
    apiVersion: API_VERSION,
    kind: "AgentSession",
    metadata: { name: "repair" },
    spec: {
      agentRef: { name: "coder" },
      messages: [{ text: "The tests in /workspace fail. Find out why and repair it." }],
      sandboxTemplateRef: { name: "standard" },
    },
  },
  SandboxTemplate: {
    apiVersion: API_VERSION,
    kind: "SandboxTemplate",
    metadata: { name: "standard" },
    spec: { image: "drover-sandbox:0.1.0" },
  },
  HarnessPool: {
    apiVersion: API_VERSION,
    kind: "HarnessPool",
    metadata: { name: "default", namespace: "drover-system" },
    spec: {
      model: { apiKeySecret: { name: "model-api-key" } },
      allowedNamespaces: {
        from: "Selector",
        selector: { matchLabels: { "agents.example.com/allowed": "true" } },
      },
    },
  },
  CredentialVault: {
    apiVersion: API_VERSION,
    kind: "CredentialVault",
    metadata: { name: "team" },
    spec: {
      entries: [
        {
          name: "tracker",
          mcpServerUrl: "https://mcp.tracker.example/mcp",
          secretRef: { name: "tracker-token" },
        },
      ],
    },
  },
};
