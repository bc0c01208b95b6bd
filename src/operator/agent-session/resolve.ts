import { AGENT_TOOLSET, type AgentSpec, agentSpec } from "../../api/agent.ts";
import { type AgentSessionStatus, agentSessionSpec } from "../../api/agent-session.ts";
import type { ConditionReason } from "../../api/conditions.ts";
import { credentialVaultSpec } from "../../api/credential-vault.ts";
import { harnessPoolSpec } from "../../api/harness-pool.ts";
import { sandboxTemplateSpec } from "../../api/sandbox-template.ts";
import { uidOf } from "../../kube/objects.ts";
import { revisionOf, type SessionSnapshot } from "../../protocol/snapshot.ts";
import { derivedSessionId } from "../../sessions/ids.ts";
import { condition, type Wanted } from "../conditions.ts";
import type {
  Agent,
  AgentSession,
  CredentialVault,
  HarnessPool,
  SandboxTemplate,
} from "../kinds.ts";
import { parseStoredSpec } from "../stored-spec.ts";

/**
 * From an AgentSession and the objects it refers to, the frozen snapshot its session is made from,
 * or the conditions that say what is missing. Pure; local mode uses it too.
 */

/** Everything a session may refer to, as far as it exists. */
export interface SessionObjects {
  session: AgentSession;
  installNamespace: string;
  agent?: Agent | undefined;
  template?: SandboxTemplate | undefined;
  /** By name; those of `spec.vaultRefs` that exist. */
  vaults: ReadonlyMap<string, CredentialVault>;
  /** A controller reviews vaults here: one without a status has not been reviewed yet. */
  vaultsAreReviewed?: boolean | undefined;
  /** `status.code` is the pool's code in the session store. */
  pool?: HarnessPool | undefined;
  /** Labels of the session's namespace; needed only for a pool with `allowedNamespaces.from: Selector`. */
  namespaceLabels?: Readonly<Record<string, string>> | undefined;
}

export type ResolvedNames = NonNullable<AgentSessionStatus["resolved"]>;

export type Resolution =
  | { kind: "resolved"; snapshot: SessionSnapshot; resolved: ResolvedNames; conditions: Wanted[] }
  /** A person must create or correct something; `problem` is the first of the conditions that says so. */
  | { kind: "unresolved"; conditions: Wanted[]; problem: Wanted }
  /** The pool is not registered yet, or a vault not reviewed. */
  | { kind: "not-yet"; conditions: Wanted[]; message: string };

type Part<T> = { condition: Wanted; value?: T };

export function resolveSession(given: SessionObjects): Resolution {
  const spec = parseStoredSpec(given.session, agentSessionSpec);
  if (!spec.ok) {
    const problem = condition("AgentResolved", "False", "InvalidSpec", spec.problem);
    return { kind: "unresolved", conditions: referencesNotChecked(problem), problem };
  }
  const objects = { ...given, session: { ...given.session, spec: spec.spec } };
  const agent = resolveAgent(objects);
  const template = resolveTemplate(objects, agent.value?.spec);
  const vaults = resolveVaults(objects);
  const pool = resolvePool(objects);
  const parts = [agent, template, vaults, pool];
  const conditions = parts.map((part) => part.condition);
  const problem = conditions.find(({ status }) => status === "False");
  if (problem !== undefined) return { kind: "unresolved", conditions, problem };
  if (agent.value === undefined || vaults.value === undefined || pool.value === undefined) {
    const unknown = conditions.find(({ status, message }) => status !== "True" && message !== "");
    return { kind: "not-yet", conditions, message: unknown?.message ?? "" };
  }
  const { metadata } = objects.session;
  const uid = uidOf(objects.session);
  const snapshot: SessionSnapshot = {
    version: 1,
    sessionId: derivedSessionId(uid, pool.value),
    tenant: metadata.namespace ?? "",
    object: { name: metadata.name, uid },
    agent: {
      ...agent.value.spec,
      name: agent.value.name,
      revision: revisionOf(agent.value.spec),
    },
    ...(template.value === undefined ? {} : { template: template.value }),
    vaults: vaults.value,
    repositories: spec.spec.repositories ?? [],
    pool: { name: pool.value.name, uid: pool.value.uid, code: pool.value.code },
  };
  return { kind: "resolved", snapshot, resolved: namesIn(snapshot), conditions };
}

/** What `status.resolved` says of a snapshot. */
export function namesIn(snapshot: SessionSnapshot): ResolvedNames {
  return {
    agent: snapshot.agent.name,
    agentRevision: snapshot.agent.revision,
    ...(snapshot.template === undefined
      ? {}
      : { template: snapshot.template.name, templateRevision: snapshot.template.revision }),
    pool: snapshot.pool.name,
  };
}

/** The reference conditions of a session that has been created from this snapshot. */
export function conditionsOf(snapshot: SessionSnapshot): Wanted[] {
  return [
    condition("AgentResolved", "True", "Resolved"),
    snapshot.template === undefined
      ? condition("TemplateResolved", "True", "NotRequired")
      : condition("TemplateResolved", "True", "Resolved"),
    condition("VaultsResolved", "True", snapshot.vaults.length === 0 ? "NotRequired" : "Resolved"),
    condition("PoolResolved", "True", "Resolved"),
  ];
}

const REFERENCE_CONDITIONS = [
  "AgentResolved",
  "TemplateResolved",
  "VaultsResolved",
  "PoolResolved",
] as const;

/** The reference conditions of a session that nobody has looked at, but for those given. */
export function referencesNotChecked(...known: Wanted[]): Wanted[] {
  return REFERENCE_CONDITIONS.map(
    (type) => known.find((one) => one.type === type) ?? condition(type, "Unknown", "NotChecked"),
  );
}

function resolveAgent(objects: SessionObjects): Part<{ name: string; spec: AgentSpec }> {
  const { session } = objects;
  if (session.spec.agent !== undefined) {
    return {
      condition: condition("AgentResolved", "True", "Resolved"),
      value: { name: "inline", spec: session.spec.agent },
    };
  }
  const name = session.spec.agentRef?.name ?? "";
  if (objects.agent === undefined) {
    return missing("AgentResolved", session, {
      kind: "Agent",
      words: "agent",
      name,
      field: "spec.agentRef.name",
    });
  }
  const parsed = parseStoredSpec(objects.agent, agentSpec);
  if (!parsed.ok) return failed("AgentResolved", "InvalidSpec", parsed.problem);
  return {
    condition: condition("AgentResolved", "True", "Resolved"),
    value: { name, spec: parsed.spec },
  };
}

function resolveTemplate(
  objects: SessionObjects,
  agent: AgentSpec | undefined,
): Part<NonNullable<SessionSnapshot["template"]>> {
  const { session, template } = objects;
  const name = session.spec.sandboxTemplateRef?.name;
  if (name === undefined) {
    const needs = agent?.tools?.some(({ type }) => type === AGENT_TOOLSET) ?? false;
    if (!needs) {
      return {
        condition:
          agent === undefined
            ? condition("TemplateResolved", "Unknown", "NotChecked")
            : condition("TemplateResolved", "True", "NotRequired"),
      };
    }
    return failed(
      "TemplateResolved",
      "TemplateRequired",
      `the agent of ${nameOf(session)} declares ${AGENT_TOOLSET}, whose tools run in a sandbox, and spec.sandboxTemplateRef is not set; create a new AgentSession that names a SandboxTemplate`,
    );
  }
  if (template === undefined) {
    return missing("TemplateResolved", session, {
      kind: "SandboxTemplate",
      words: "sandbox template",
      name,
      field: "spec.sandboxTemplateRef.name",
    });
  }
  const parsed = parseStoredSpec(template, sandboxTemplateSpec);
  if (!parsed.ok) return failed("TemplateResolved", "InvalidSpec", parsed.problem);
  return {
    condition: condition("TemplateResolved", "True", "Resolved"),
    value: { ...parsed.spec, name, revision: revisionOf(parsed.spec) },
  };
}

/**
 * How the vaults of a session stand that has been created: it goes on with the entries it was made
 * with, but their values may be gone, or may not be read any more.
 */
export function vaultsHeld(
  session: AgentSession,
  vaults: ReadonlyMap<string, CredentialVault>,
): Wanted {
  const refs = session.spec.vaultRefs ?? [];
  for (const { name } of refs) {
    const vault = vaults.get(name);
    if (vault === undefined) {
      const message = `${nameOf(session)} was made with credential vault "${name}", which does not exist in namespace "${session.metadata.namespace}" any more: the session goes on with the entries it knows for as long as their values can be read; create the CredentialVault again under that name`;
      return condition("VaultsResolved", "False", "InvalidReference", message);
    }
    const review = vault.status?.conditions?.find(({ type }) => type === "Ready");
    const reason = UNUSABLE_VAULT.find((one) => one === review?.reason);
    if (reason !== undefined) {
      const message = `credential vault "${name}" cannot be used: ${review?.message}`;
      return condition("VaultsResolved", "False", reason, message);
    }
  }
  return condition("VaultsResolved", "True", refs.length === 0 ? "NotRequired" : "Resolved");
}

const UNUSABLE_VAULT = [
  "InvalidSpec",
  "InvalidReference",
  "AccessDenied",
  "CredentialNotFound",
] as const satisfies readonly ConditionReason[];

function resolveVaults(objects: SessionObjects): Part<SessionSnapshot["vaults"]> {
  const { session } = objects;
  const refs = session.spec.vaultRefs ?? [];
  const vaults: SessionSnapshot["vaults"] = [];
  for (const [i, { name }] of refs.entries()) {
    const vault = objects.vaults.get(name);
    if (vault === undefined) {
      return missing("VaultsResolved", session, {
        kind: "CredentialVault",
        words: "credential vault",
        name,
        field: `spec.vaultRefs[${i}].name`,
      });
    }
    const parsed = parseStoredSpec(vault, credentialVaultSpec);
    if (!parsed.ok) return failed("VaultsResolved", "InvalidSpec", parsed.problem);
    const review = vault.status?.conditions?.find(({ type }) => type === "Ready");
    if (review?.reason === "AccessDenied" || review?.reason === "InvalidReference") {
      return failed(
        "VaultsResolved",
        review.reason,
        `credential vault "${name}" cannot be used: ${review.message}`,
      );
    }
    if (review === undefined && objects.vaultsAreReviewed === true) {
      const message = `credential vault "${name}" has not been reviewed yet`;
      return { condition: condition("VaultsResolved", "Unknown", "NotChecked", message) };
    }
    vaults.push({ ...parsed.spec, name, uid: uidOf(vault) });
  }
  return {
    condition: condition("VaultsResolved", "True", refs.length === 0 ? "NotRequired" : "Resolved"),
    value: vaults,
  };
}

interface ResolvedPool {
  name: string;
  uid: string;
  code: string;
  partitions: number;
}

function resolvePool(objects: SessionObjects): Part<ResolvedPool> {
  const { session, pool, installNamespace } = objects;
  const { name } = session.spec.harnessPoolRef;
  if (pool === undefined) {
    return failed(
      "PoolResolved",
      "InvalidReference",
      `${nameOf(session)} refers to harness pool "${name}" which does not exist in namespace "${installNamespace}", where Drover is installed; create it there, or create a new AgentSession with another spec.harnessPoolRef.name`,
    );
  }
  const parsed = parseStoredSpec(pool, harnessPoolSpec);
  if (!parsed.ok) return failed("PoolResolved", "InvalidSpec", parsed.problem);
  if (!admits(objects, parsed.spec.allowedNamespaces)) {
    return failed(
      "PoolResolved",
      "NamespaceNotAllowed",
      `harness pool "${name}" does not serve namespace "${session.metadata.namespace}" (its spec.allowedNamespaces is ${JSON.stringify(parsed.spec.allowedNamespaces)}); ask the platform team to admit the namespace, or name another pool in a new AgentSession`,
    );
  }
  const code = pool.status?.code;
  if (code === undefined) {
    const message = `harness pool "${name}" is not registered in Redis yet; see kubectl -n ${installNamespace} describe harnesspool ${name}`;
    return { condition: condition("PoolResolved", "Unknown", "NotChecked", message) };
  }
  return {
    condition: condition("PoolResolved", "True", "Resolved"),
    value: {
      name: pool.metadata.name,
      uid: uidOf(pool),
      code,
      partitions: parsed.spec.partitions,
    },
  };
}

function admits(
  objects: SessionObjects,
  allowed: HarnessPool["spec"]["allowedNamespaces"],
): boolean {
  switch (allowed.from) {
    case "All":
      return true;
    case "Same":
      return objects.session.metadata.namespace === objects.installNamespace;
    case "Selector": {
      const labels = objects.namespaceLabels ?? {};
      const wanted = Object.entries(allowed.selector?.matchLabels ?? {});
      return wanted.length > 0 && wanted.every(([key, value]) => labels[key] === value);
    }
  }
}

function missing(
  type: Wanted["type"],
  session: AgentSession,
  reference: { kind: string; words: string; name: string; field: string },
): { condition: Wanted } {
  return failed(
    type,
    "InvalidReference",
    `${nameOf(session)} refers to ${reference.words} "${reference.name}" which does not exist in namespace "${session.metadata.namespace}"; create the ${reference.kind}, and the session starts by itself, or create a new AgentSession with another ${reference.field}`,
  );
}

function failed(
  type: Wanted["type"],
  reason: ConditionReason,
  message: string,
): { condition: Wanted } {
  return { condition: condition(type, "False", reason, message) };
}

function nameOf(session: AgentSession): string {
  return `agent session "${session.metadata.name}"`;
}
