import { describe, expect, it } from "@jest/globals";
import { CONDITIONS, EVENT_REASONS, REASONS } from "../../src/api/conditions.ts";
import { buildCrd, buildObjectSchema } from "../../src/api/crd.ts";
import type { CrdSchema } from "../../src/api/crd-schema.ts";
import { KINDS, type KindName } from "../../src/api/kinds.ts";
import {
  ANNOTATIONS,
  API_VERSION,
  FIELD_MANAGERS,
  FINALIZER,
  LABELS,
} from "../../src/api/names.ts";
import { ERROR_CODES } from "../../src/runtime/errors.ts";

/**
 * Outward names, frozen: manifests, alerts, scripts and stored objects hold them. Adding a line is
 * cheap; a line that changes or goes breaks somebody, and needs a new version of the API.
 */

/** One name a word; line breaks are for reading. */
const names = (text: string): string[] => text.trim().split(/\s+/);

const agentFields = names(`
  model
  system
  maxOutputTokens
  contextWindowTokens
  tools
  tools[].type
  tools[].mcpServerName
  tools[].name
  tools[].description
  tools[].inputSchema
  tools[].defaultConfig
  tools[].defaultConfig.enabled
  tools[].defaultConfig.permissionPolicy
  tools[].configs
  tools[].configs[].name
  tools[].configs[].enabled
  tools[].configs[].permissionPolicy
  mcpServers
  mcpServers[].name
  mcpServers[].url
`);

const statusFields = names(`
  status status.observedGeneration
  status.conditions status.conditions[].type status.conditions[].status
  status.conditions[].observedGeneration status.conditions[].lastTransitionTime
  status.conditions[].reason status.conditions[].message
`);

const fields: Record<KindName, string[]> = {
  Agent: ["spec", ...agentFields.map((field) => `spec.${field}`), ...statusFields],
  AgentSession: [
    ...names(`
      spec
      spec.agentRef
      spec.agentRef.name
      spec.agent
      spec.messages
      spec.messages[].text
      spec.sandboxTemplateRef
      spec.sandboxTemplateRef.name
      spec.vaultRefs
      spec.vaultRefs[].name
      spec.repositories
      spec.repositories[].name
      spec.repositories[].url
      spec.repositories[].path
      spec.repositories[].branch
      spec.repositories[].pushBranches
      spec.harnessPoolRef
      spec.harnessPoolRef.name
      spec.operatingMode
      spec.activeDeadlineSeconds
      spec.ttlSecondsAfterFinished
      status.state
      status.sessionId
      status.resolved
      status.resolved.agent
      status.resolved.agentRevision
      status.resolved.template
      status.resolved.templateRevision
      status.resolved.pool
      status.startTime
      status.completionTime
    `),
    ...agentFields.map((field) => `spec.agent.${field}`),
    ...statusFields,
  ],
  SandboxTemplate: [
    ...names(`
      spec
      spec.image
      spec.imagePullPolicy
      spec.runtimeClassName
      spec.resources
      spec.resources.cpu
      spec.resources.memory
      spec.resources.ephemeralStorage
      spec.workspaceSize
      spec.setupScript
      spec.startDeadlineSeconds
      spec.idleTimeoutSeconds
    `),
    ...statusFields,
  ],
  HarnessPool: [
    ...names(`
      spec
      spec.replicas
      spec.concurrency
      spec.image
      spec.model
      spec.model.baseUrl
      spec.model.apiKeySecret
      spec.model.apiKeySecret.name
      spec.model.apiKeySecret.key
      spec.model.apiKeyVaultRef
      spec.model.apiKeyVaultRef.path
      spec.model.apiKeyVaultRef.key
      spec.mcpCallTimeoutSeconds
      spec.inClusterServers
      spec.inClusterServers[].host
      spec.inClusterServers[].port
      spec.allowedNamespaces
      spec.allowedNamespaces.from
      spec.allowedNamespaces.selector
      spec.allowedNamespaces.selector.matchLabels
      spec.partitions
      spec.resources
      spec.resources.cpu
      spec.resources.memory
      status.replicas
      status.readyReplicas
      status.selector
      status.code
    `),
    ...statusFields,
  ],
  CredentialVault: [
    ...names(`
      spec
      spec.entries
      spec.entries[].name
      spec.entries[].mcpServerUrl
      spec.entries[].repositoryUrl
      spec.entries[].modelProvider
      spec.entries[].secretRef
      spec.entries[].secretRef.name
      spec.entries[].secretRef.key
      spec.entries[].vaultRef
      spec.entries[].vaultRef.path
      spec.entries[].vaultRef.key
      spec.entries[].header
      spec.entries[].scheme
      status.entries
      status.entries[].name
      status.entries[].resolved
      status.entries[].reason
      status.entries[].message
      status.entries[].version
      status.entries[].lastReadTime
    `),
    ...statusFields,
  ],
};

function fieldsOf(schema: CrdSchema, prefix: string): string[] {
  return Object.entries(schema.properties ?? {}).flatMap(([name, child]) => {
    const path = `${prefix}${name}`;
    return [path, ...fieldsOf(child, `${path}.`), ...fieldsOf(child.items ?? {}, `${path}[].`)];
  });
}

describe("drover.dev/v1alpha1", () => {
  it.each(KINDS)("the fields of $kind are the pinned ones", (kind) => {
    const { spec, status } = buildObjectSchema(kind).properties ?? {};
    const found = fieldsOf({ properties: { spec: spec ?? {}, status: status ?? {} } }, "");

    expect(new Set(found)).toEqual(new Set(fields[kind.kind]));
  });

  it.each(KINDS)("the CRD of $kind says whose it is", (kind) => {
    expect(buildCrd(kind).metadata.labels).toEqual({
      "app.kubernetes.io/name": "drover",
      "app.kubernetes.io/part-of": "drover",
    });
  });

  it("kinds are called as ever", () => {
    expect(KINDS.map(({ kind, plural, shortName }) => `${kind} ${plural} ${shortName}`)).toEqual([
      "Agent agents agn",
      "AgentSession agentsessions ags",
      "SandboxTemplate sandboxtemplates sbt",
      "HarnessPool harnesspools hrp",
      "CredentialVault credentialvaults cvt",
    ]);
    expect(API_VERSION).toBe("drover.dev/v1alpha1");
  });
});

it("conditions, their reasons and the reasons of Events are the pinned ones", () => {
  expect(Object.keys(CONDITIONS)).toEqual(
    names(`
    Ready Reconciling Stalled Completed AgentResolved TemplateResolved VaultsResolved
    PoolResolved IsolationVerified VaultIdentity
    `),
  );
  expect(new Set(Object.keys(REASONS))).toEqual(
    new Set(
      names(`
    Available Accepted Resolved NotRequired NotChecked Settled Progressing Pending Running Idle
    WaitingForApproval WaitingForClientTool Suspended Stopped Resumed EndTurn Interrupted
    SessionIdentity PodIdentity
    InvalidSpec InvalidReference TemplateRequired NamespaceNotAllowed AccessDenied CredentialNotFound
    Failed DeadlineExceeded Quarantined LogLost NoHarness
    ImagePullFailed Unschedulable QuotaExceeded PodRefused PodFailed ConfigError CrashLoop
    StartDeadlineExceeded SetupFailed
    ExitedEarly OutOfMemory Evicted PodDeleted NodeLost Unreachable ProcessEnded
    RedisUnreachable RedisAuthFailed RedisEvicts DurabilityNotKept RedisUnsupported
      `),
    ),
  );
  expect(new Set(Object.keys(EVENT_REASONS))).toEqual(
    new Set(
      names(`
    SessionCompleted SessionResumed SessionSuspended
    SandboxProvisioned SandboxLost SandboxReleased CleanupForced
      `),
    ),
  );
});

it("error codes are the pinned ones", () => {
  expect(new Set(Object.keys(ERROR_CODES))).toEqual(
    new Set(
      names(`
    CONFIG_INVALID INPUT_INVALID INPUT_TOO_LARGE UNAUTHENTICATED FORBIDDEN NOT_FOUND CONFLICT
    UNAVAILABLE TIMEOUT INTERNAL SESSION_NOT_FOUND SESSION_CLOSED SESSION_QUARANTINED SESSION_LEASE_LOST
    SESSION_REWOUND SESSION_EVENT_TOO_LARGE REDIS_UNREACHABLE REDIS_AUTH_FAILED REDIS_EVICTS
    REDIS_DURABILITY_NOT_KEPT REDIS_UNSUPPORTED LOG_DIRECTORY_IN_USE LOG_DAMAGED OUTCOME_UNKNOWN
    SANDBOX_STALE_EPOCH SANDBOX_BOUND SANDBOX_INPUT_CHANGED CREDENTIAL_UNAVAILABLE
    CREDENTIAL_NOT_FOUND UPSTREAM_REFUSED ADDRESS_REFUSED SCRIPT_MISMATCH FOREIGN_CREDENTIAL
    LIMIT_EXCEEDED
      `),
    ),
  );
});

it("names in the metadata of Kubernetes objects are the pinned ones", () => {
  expect(FINALIZER).toBe("drover.dev/session");
  expect(FIELD_MANAGERS).toEqual({ children: "drover-operator", status: "drover-status" });
  expect(Object.values(LABELS)).toEqual([
    "drover.dev/sandbox",
    "drover.dev/session",
    "drover.dev/template",
    "drover.dev/pool",
    "drover.dev/hand",
    "drover.dev/generation",
    "app.kubernetes.io/component",
    "app.kubernetes.io/managed-by",
    "app.kubernetes.io/part-of",
    "app.kubernetes.io/name",
    "app.kubernetes.io/instance",
  ]);
  expect(Object.values(ANNOTATIONS)).toEqual([
    "drover.dev/session-id",
    "drover.dev/template-revision",
    "drover.dev/request-id",
  ]);
});
