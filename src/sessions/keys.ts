import type { ToolPinKey } from "../protocol/proxy-ports.ts";
import { AppError } from "../runtime/errors.ts";
import { parseSessionId, type SessionIdParts } from "./ids.ts";
import { partitionName } from "./pool-code.ts";
import type { PoolKey, SessionRef } from "./session-log.ts";

/**
 * Every Redis key (docs/design/session-log.md#names-and-keys). All keys of a session share the slot
 * of its partition.
 */

export interface PartitionKeys {
  /** What a member of `due` is prefixed with to give the session's keys. */
  prefix: string;
  due: string;
  bell: string;
  hands: string;
  hbell: string;
  state: string;
  sbell: string;
  arch: string;
  workers: string;
  /** What was last heard of each worker that holds or held a lease here; see takeover.ts. */
  alive: string;
}

export interface SessionKeys extends PartitionKeys {
  /** `<tenant>:<session id>`: its name in the partition's tables. */
  member: string;
  meta: string;
  log: string;
  idempotency: string;
  preview: string;
  payloads: string;
  snapshot: string;
  /** Ids of the sandboxes bound to it; beside the snapshot, where a harness may only read. */
  bound: string;
  index: string;
  notify: string;
  deltas: string;
}

export function partitionKeys(code: string, partition: string): PartitionKeys {
  const tag = `drover:{${code}.${partition}}`;
  return {
    prefix: `${tag}:`,
    due: `${tag}:q:due`,
    bell: `${tag}:q:bell`,
    hands: `${tag}:q:hands`,
    hbell: `${tag}:q:hbell`,
    state: `${tag}:q:state`,
    sbell: `${tag}:q:sbell`,
    arch: `${tag}:q:arch`,
    workers: `${tag}:q:w`,
    alive: `${tag}:q:alive`,
  };
}

export function poolPartitions(pool: PoolKey): PartitionKeys[] {
  return Array.from({ length: pool.partitions }, (_, p) =>
    partitionKeys(pool.code, partitionName(p)),
  );
}

/** SESSION_NOT_FOUND when tenant or id cannot name a session; so no input reaches another key or file. */
export function checkRef(ref: SessionRef): SessionIdParts {
  if (!/^[a-z0-9]([-a-z0-9]{0,251}[a-z0-9])?$/.test(ref.tenant)) {
    throw new AppError("SESSION_NOT_FOUND", `"${ref.tenant}" is not a namespace`);
  }
  return parseSessionId(ref.id);
}

/** As `checkRef`. */
export function sessionKeys(ref: SessionRef): SessionKeys {
  const { pool, partition } = checkRef(ref);
  const common = partitionKeys(pool, partition);
  const member = `${ref.tenant}:${ref.id}`;
  const own = `${common.prefix}${member}`;
  return {
    ...common,
    member,
    meta: `${own}:m`,
    log: `${own}:l`,
    idempotency: `${own}:k`,
    preview: `${own}:d`,
    payloads: `${own}:b`,
    snapshot: `drover:s:{${pool}.${partition}}:${member}`,
    bound: `drover:s:{${pool}.${partition}}:${member}:x`,
    index: `${common.prefix}${ref.tenant}:ix`,
    notify: `${own}:n`,
    deltas: `${own}:v`,
  };
}

export function refOfMember(member: string): SessionRef {
  const at = member.indexOf(":");
  return { tenant: member.slice(0, at), id: member.slice(at + 1) };
}

export function poolConfigKey(code: string): string {
  return `drover:cfg:${code}`;
}

export function bindingKey(sandboxId: string): string {
  return `drover:px:bind:${sandboxId}`;
}

/** What proxies say of a CredentialVault's entries, one field each. */
export function credentialReportsKey(tenant: string, vault: string): string {
  return `drover:px:cred:${tenant}:${vault}`;
}

/** Hashes of the tools that an agent revision saw first on a server. */
export function toolPinsKey({ tenant, revision, server }: ToolPinKey): string {
  return `drover:px:pin:${tenant}:${revision}:${server}`;
}

/** Stream of how far each audit chain had got, each entry signed by the issuer, which alone writes here. */
export const auditCheckpointsKey = "drover:px:audit";
