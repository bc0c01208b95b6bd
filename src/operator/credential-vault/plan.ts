import type { CredentialVaultSpec, CredentialVaultStatus } from "../../api/credential-vault.ts";
import { rfc3339 } from "../../kube/status.ts";
import type { EntryReport } from "../../protocol/session-ports.ts";
import { notWithoutHelp, readyNow, type Wanted } from "../conditions.ts";
import { childName, shortHash } from "../names.ts";

interface Account {
  namespace: string;
  name: string;
}

/** Under which service accounts values are read: repositories are the edge's, all else the sidecars'. */
export interface Readers {
  pools: readonly Account[];
  /** None: the install has no edge. */
  edge: Account | undefined;
}

/** One service account that has to read one Secret. */
export interface SecretRead {
  serviceAccount: Account;
  secret: string;
}

/** Whether it may. */
export interface Access extends SecretRead {
  allowed: boolean;
}

export interface VaultFacts {
  namespace: string;
  spec: CredentialVaultSpec;
  readers: Readers;
  /** One for each of `secretReads`. */
  accesses: readonly Access[];
  /** Whether the install has a vault, so that `vaultRef` means something. */
  vaultConfigured: boolean;
}

export type EntryStatus = NonNullable<CredentialVaultStatus["entries"]>[number];
type Entry = CredentialVaultSpec["entries"][number];

const NO_VAULT =
  "this install has no vault; name a Secret in `secretRef`, or ask the platform team to set `vault.address` of the chart";

/** A busy entry would otherwise have its status written each minute for its time alone. */
const READ_TIME_STEP_MS = 300_000;

/** Who has to read which Secret, each pair once. */
export function secretReads(spec: CredentialVaultSpec, readers: Readers): SecretRead[] {
  const reads = spec.entries.flatMap((entry) => {
    const secret = entry.secretRef?.name;
    if (secret === undefined) return [];
    return readersOf(entry, readers).map((serviceAccount) => ({ serviceAccount, secret }));
  });
  return [...new Map(reads.map((read) => [`${accountOf(read)} ${read.secret}`, read])).values()];
}

function readersOf({ repositoryUrl }: Entry, { pools, edge }: Readers): readonly Account[] {
  if (repositoryUrl === undefined) return pools;
  return edge === undefined ? [] : [edge];
}

/** The operator can read no Secret itself: it asks who may, and says how to grant what is missing. */
export function planConditions(facts: VaultFacts, entries: readonly EntryStatus[]): Wanted[] {
  const { namespace, accesses, spec } = facts;
  const unserved = spec.entries.find((entry) => lacksVault(entry, facts));
  if (unserved !== undefined) {
    return notWithoutHelp(
      "InvalidReference",
      `entry "${unserved.name}" has a \`vaultRef\`, but ${NO_VAULT}`,
    );
  }
  const denied = accesses.filter(({ allowed }) => !allowed);
  const [first] = denied;
  if (first === undefined) return planFromReads(entries);
  const secrets = [...new Set(denied.map(({ secret }) => secret))];
  const grants = secrets.flatMap((secret) =>
    grantOf(
      namespace,
      secret,
      denied.filter((access) => access.secret === secret),
    ),
  );
  return notWithoutHelp(
    "AccessDenied",
    `${denial(first, namespace)}; grant what is missing with: ${grants.join(" && ")}`,
  );
}

/** Whether a Secret exists the operator may not ask: it knows what the proxies found that read it. */
function planFromReads(entries: readonly EntryStatus[]): Wanted[] {
  const gone = entries.find(({ reason }) => reason === "CredentialNotFound");
  if (gone === undefined) return readyNow("Accepted");
  return notWithoutHelp(
    "CredentialNotFound",
    `entry "${gone.name}": ${gone.message} (last read ${gone.lastReadTime}); put the value there: the vault is Ready as soon as a session reads it`,
  );
}

/**
 * Entry by entry: what stands in the way of every proxy, or else what the last one found that read it.
 * `reports` is undefined while they cannot be read; what was known then stays.
 */
export function planEntries(
  facts: VaultFacts,
  reports: ReadonlyMap<string, EntryReport> | undefined,
  previous: readonly EntryStatus[] = [],
): EntryStatus[] {
  return facts.spec.entries.map((entry) => {
    const { name } = entry;
    const before = previous.find((status) => status.name === name);
    const obstacle = obstacleOf(entry, facts);
    if (obstacle !== undefined) return { name, resolved: "False", ...obstacle };
    if (reports === undefined && before !== undefined) return before;
    const report = reports?.get(name);
    if (report === undefined) {
      const message = "no session has asked for it yet";
      return { name, resolved: "Unknown", reason: "NotChecked", message };
    }
    const { ok, reason, message, version, ts } = report;
    const found: EntryStatus = {
      name,
      resolved: ok ? "True" : "False",
      reason,
      message,
      ...(version === undefined ? {} : { version }),
    };
    return { ...found, lastReadTime: readTime(found, ts, before) };
  });
}

function obstacleOf(
  entry: Entry,
  facts: VaultFacts,
): Pick<EntryStatus, "reason" | "message"> | undefined {
  if (lacksVault(entry, facts)) return { reason: "InvalidReference", message: NO_VAULT };
  const accounts = readersOf(entry, facts.readers);
  const denied = facts.accesses.find(
    ({ secret, serviceAccount, allowed }) =>
      !allowed && secret === entry.secretRef?.name && accounts.includes(serviceAccount),
  );
  if (denied === undefined) return undefined;
  const message = `${denial(denied, facts.namespace)}; condition Ready holds the commands that grant it`;
  return { reason: "AccessDenied", message };
}

function lacksVault({ vaultRef }: Entry, { vaultConfigured }: VaultFacts): boolean {
  return vaultRef !== undefined && !vaultConfigured;
}

function readTime(found: EntryStatus, ts: number, before: EntryStatus | undefined): string {
  const isSame = (["resolved", "reason", "message", "version"] as const).every(
    (field) => before?.[field] === found[field],
  );
  const last = before?.lastReadTime;
  const isRecent = last !== undefined && ts - Date.parse(last) < READ_TIME_STEP_MS;
  return isSame && isRecent ? last : rfc3339(ts);
}

function denial(access: Access, namespace: string): string {
  return `service account "${accountOf(access)}", under which a proxy reads credentials, may not get Secret "${access.secret}" in namespace "${namespace}"`;
}

/** One role for the Secret, one binding for every account that lacks it. */
function grantOf(namespace: string, secret: string, denied: readonly Access[]): string[] {
  const role = childName("drover-read-", secret);
  const accounts = denied.map((access) => `--serviceaccount=${accountOf(access)}`);
  const binding = childName(`${role}-`, shortHash(accounts.join(" ")));
  return [
    `kubectl -n ${namespace} create role ${role} --verb=get --resource=secrets --resource-name=${secret}`,
    `kubectl -n ${namespace} create rolebinding ${binding} --role=${role} ${accounts.join(" ")}`,
  ];
}

function accountOf({ serviceAccount }: SecretRead): string {
  return `${serviceAccount.namespace}:${serviceAccount.name}`;
}
