import type { z } from "zod";
import { agentSpec, agentStatus } from "./agent.ts";
import { agentSessionSpec, agentSessionStatus } from "./agent-session.ts";
import { credentialVaultSpec, credentialVaultStatus } from "./credential-vault.ts";
import { harnessPoolSpec, harnessPoolStatus } from "./harness-pool.ts";
import { sandboxTemplateSpec, sandboxTemplateStatus } from "./sandbox-template.ts";

export const KIND_NAMES = [
  "Agent",
  "AgentSession",
  "SandboxTemplate",
  "HarnessPool",
  "CredentialVault",
] as const;
export type KindName = (typeof KIND_NAMES)[number];

export interface PrinterColumn {
  name: string;
  type: "string" | "integer" | "date";
  jsonPath: string;
  /** 1: shown by `-o wide` only. */
  priority?: 1;
}

/** All that a CustomResourceDefinition says besides its group and version. Every kind is namespaced. */
export interface Kind {
  kind: KindName;
  plural: string;
  shortName: string;
  description: string;
  spec: z.ZodType;
  status: z.ZodType;
  columns: readonly PrinterColumn[];
  selectableFields?: readonly string[];
  scale?: { specReplicasPath: string; statusReplicasPath: string; labelSelectorPath: string };
  /** The longest `metadata.name`, where children or labels carry it; 253 when absent. */
  maxNameLength?: number;
}

const readyColumn = (name: string, field: string): PrinterColumn => ({
  name,
  type: "string",
  jsonPath: `.status.conditions[?(@.type=="Ready")].${field}`,
});
const ready = readyColumn("Ready", "status");
const reason = readyColumn("Reason", "reason");
const message: PrinterColumn = { ...readyColumn("Message", "message"), priority: 1 };
const age: PrinterColumn = { name: "Age", type: "date", jsonPath: ".metadata.creationTimestamp" };

export const KINDS: readonly Kind[] = [
  {
    kind: "Agent",
    plural: "agents",
    shortName: "agn",
    description:
      "Agent says what an agent is: its model, its instructions and its tools. A session pins the agent as it was when the session started; later edits change new sessions only.",
    spec: agentSpec,
    status: agentStatus,
    columns: [
      { name: "Model", type: "string", jsonPath: ".spec.model" },
      ready,
      reason,
      message,
      age,
    ],
  },
  {
    kind: "AgentSession",
    plural: "agentsessions",
    shortName: "ags",
    description:
      "AgentSession is one conversation of an agent with its work. The conversation itself is in the session's log, not here: this object says what is wanted and how far it is.",
    spec: agentSessionSpec,
    status: agentSessionStatus,
    columns: [
      { name: "State", type: "string", jsonPath: ".status.state" },
      ready,
      reason,
      { name: "Agent", type: "string", jsonPath: ".status.resolved.agent" },
      { name: "Pool", type: "string", jsonPath: ".spec.harnessPoolRef.name", priority: 1 },
      { name: "Template", type: "string", jsonPath: ".spec.sandboxTemplateRef.name", priority: 1 },
      message,
      age,
    ],
    selectableFields: [".status.state", ".spec.agentRef.name", ".spec.sandboxTemplateRef.name"],
  },
  {
    kind: "SandboxTemplate",
    plural: "sandboxtemplates",
    shortName: "sbt",
    description:
      "SandboxTemplate is the recipe of sandboxes, the short-lived pods in which an agent's bash and file tools run. A session pins the template as it was when the session started.",
    spec: sandboxTemplateSpec,
    status: sandboxTemplateStatus,
    columns: [
      { name: "Image", type: "string", jsonPath: ".spec.image" },
      ready,
      reason,
      message,
      age,
    ],
    // A label of every sandbox.
    maxNameLength: 63,
  },
  {
    kind: "HarnessPool",
    plural: "harnesspools",
    shortName: "hrp",
    description:
      "HarnessPool is a group of stateless workers that run sessions: how many, with which model endpoint, and for which namespaces. It lives in the namespace in which Drover is installed.",
    spec: harnessPoolSpec,
    status: harnessPoolStatus,
    columns: [
      { name: "Desired", type: "integer", jsonPath: ".spec.replicas" },
      { name: "Ready", type: "integer", jsonPath: ".status.readyReplicas" },
      { name: "Model", type: "string", jsonPath: ".spec.model.baseUrl" },
      { ...reason, priority: 1 },
      message,
      age,
    ],
    scale: {
      specReplicasPath: ".spec.replicas",
      statusReplicasPath: ".status.replicas",
      labelSelectorPath: ".status.selector",
    },
    // Its Deployment and service account are named after it, and a label of every pod.
    maxNameLength: 32,
  },
  {
    kind: "CredentialVault",
    plural: "credentialvaults",
    shortName: "cvt",
    description:
      "CredentialVault says which credential serves which MCP server, by the place where the credential is and never by its value.",
    spec: credentialVaultSpec,
    status: credentialVaultStatus,
    columns: [ready, reason, message, age],
  },
];
