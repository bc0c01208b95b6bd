import { createHash } from "node:crypto";
import { FIELD_MANAGERS, LABELS } from "../api/names.ts";

/**
 * Names and label values of what the operator makes. An object of ours may have a name of 253
 * characters, with dots; a child's name or a label value may not (DNS label: 63). So a long or dotted
 * name is cut and gets a hash, and stays unique and the same after any restart.
 */

const LABEL_MAX = 63;

/** A DNS label that starts with `prefix`, is unique for `name` and at most `max` characters long. */
export function childName(prefix: string, name: string, max = LABEL_MAX): string {
  const plain = `${prefix}${name}`;
  if (plain.length <= max && /^[a-z0-9]([-a-z0-9]*[a-z0-9])?$/.test(plain)) return plain;
  const hash = shortHash(name);
  const cut = plain.replaceAll(/[^a-z0-9-]/g, "-").slice(0, max - hash.length - 1);
  return `${cut.replace(/-+$/, "")}-${hash}`;
}

/** `value` itself where it is a valid label value, else a shortened, unique form. */
export function labelValue(value: string): string {
  const valid =
    value.length <= LABEL_MAX && /^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$/.test(value);
  return valid ? value : childName("", value);
}

/** Name of the pod of one generation of a hand: deterministic, so that a retry finds what it made. */
export function sandboxPodName(sandbox: {
  objectName: string;
  sessionId: string;
  hand: string;
  generation: number;
}): string {
  const identity = `${sandbox.sessionId}/${sandbox.hand}/${sandbox.generation}`;
  const readable = sandbox.objectName.replaceAll(/[^a-z0-9]+/g, "-").slice(0, 32);
  const start = /^[a-z]/.test(readable) ? readable : `s-${readable}`;
  return `${start.replace(/-+$/, "")}-${sandbox.generation}-${shortHash(identity)}`;
}

export function shortHash(text: string): string {
  return createHash("sha256").update(text).digest("hex").slice(0, 12);
}

/** Labels every child carries; `managed-by` marks what we may change or delete. */
export function childLabels(component: string, instance: string): Record<string, string> {
  return {
    [LABELS.name]: "drover",
    [LABELS.component]: component,
    [LABELS.instance]: labelValue(instance),
    [LABELS.partOf]: "drover",
    [LABELS.managedBy]: MANAGER,
  };
}

export const MANAGER = FIELD_MANAGERS.children;

export const COMPONENTS = {
  harness: "harness",
  edge: "edge",
  sandbox: "sandbox",
  isolation: "isolation",
  operator: "operator",
} as const;

/** Of the leader among the operator's replicas, in the install namespace. */
export const LEADER_LEASE = "drover-operator";

const POOL_ACCOUNT = "drover-pool-";

export function poolServiceAccount(pool: string): string {
  return childName(POOL_ACCOUNT, pool);
}

export function isPoolServiceAccount(name: string): boolean {
  return name.startsWith(POOL_ACCOUNT);
}

export function poolDeployment(pool: string): string {
  return childName("drover-harness-", pool, 47);
}
