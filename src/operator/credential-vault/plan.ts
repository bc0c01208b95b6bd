import type { CredentialVaultSpec } from "../../api/credential-vault.ts";
import { notWithoutHelp, readyNow, type Wanted } from "../conditions.ts";
import { childName } from "../names.ts";

/** Whether one pool's service account may read one Secret. */
export interface Access {
  serviceAccount: { namespace: string; name: string };
  secret: string;
  allowed: boolean;
}

/** The Secrets the entries name, each once. */
export function secretsOf(spec: CredentialVaultSpec): string[] {
  return [...new Set(spec.entries.map(({ secretRef }) => secretRef.name))];
}

/** The operator can read no Secret itself: it asks who may, and says how to grant what is missing. */
export function planConditions(namespace: string, accesses: readonly Access[]): Wanted[] {
  const denied = accesses.find(({ allowed }) => !allowed);
  if (denied === undefined) return readyNow("Accepted");
  const { serviceAccount, secret } = denied;
  const account = `${serviceAccount.namespace}:${serviceAccount.name}`;
  const role = childName("drover-read-", secret);
  const message = [
    `service account "${account}", under which the proxy of that harness pool reads credentials, may not get Secret "${secret}" in namespace "${namespace}"; grant it with:`,
    `kubectl -n ${namespace} create role ${role} --verb=get --resource=secrets --resource-name=${secret}`,
    `&& kubectl -n ${namespace} create rolebinding ${childName(`${role}-`, serviceAccount.name)} --role=${role} --serviceaccount=${account}`,
  ].join(" ");
  return notWithoutHelp("AccessDenied", message);
}
