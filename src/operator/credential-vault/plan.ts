import type { CredentialVaultSpec } from "../../api/credential-vault.ts";
import { notWithoutHelp, readyNow, type Wanted } from "../conditions.ts";
import { childName, shortHash } from "../names.ts";

/** Whether one pool's service account may read one Secret. */
export interface Access {
  serviceAccount: { namespace: string; name: string };
  secret: string;
  allowed: boolean;
}

/** The Secrets the entries name, each once. */
export function secretsOf(spec: CredentialVaultSpec): string[] {
  return [...new Set(spec.entries.flatMap(({ secretRef }) => secretRef?.name ?? []))];
}

/** The operator can read no Secret itself: it asks who may, and says how to grant what is missing. */
export function planConditions(namespace: string, accesses: readonly Access[]): Wanted[] {
  const denied = accesses.filter(({ allowed }) => !allowed);
  const [first] = denied;
  if (first === undefined) return readyNow("Accepted");
  const secrets = [...new Set(denied.map(({ secret }) => secret))];
  const grants = secrets.flatMap((secret) =>
    grantOf(
      namespace,
      secret,
      denied.filter((access) => access.secret === secret),
    ),
  );
  const message = `service account "${accountOf(first)}", under which the proxy of that harness pool reads credentials, may not get Secret "${first.secret}" in namespace "${namespace}"; grant what is missing with: ${grants.join(" && ")}`;
  return notWithoutHelp("AccessDenied", message);
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

function accountOf({ serviceAccount }: Access): string {
  return `${serviceAccount.namespace}:${serviceAccount.name}`;
}
