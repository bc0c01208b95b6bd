import { AppError } from "../runtime/errors.ts";
import { Secret } from "../runtime/secret.ts";
import type { CredentialRequest } from "./credential-source.ts";

/**
 * Shorter values cannot be redacted from answers without destroying ordinary text
 * (docs/design/security.md#vault).
 */
const MIN_CREDENTIAL_BYTES = 8;
const MAX_CREDENTIAL_BYTES = 8192;

/**
 * Checks a stored value and wraps it; one line break at its end is forgiven, because editors add it.
 * Throws CREDENTIAL_UNAVAILABLE for values that cannot stand in a header or be found in answers.
 */
export function credentialValue(request: CredentialRequest, stored: unknown): Secret {
  const subject = `${describeEntry(request)} cannot be used: the value of ${describePlace(request)}`;
  return usableValue(subject, stored);
}

/** The same for a value that no entry stands for; `subject` begins the message. */
export function usableValue(subject: string, stored: unknown): Secret {
  const text = typeof stored === "string" ? stored.replace(/\r?\n$/, "") : undefined;
  const problem = text === undefined ? "is not text" : valueProblem(text);
  if (text === undefined || problem !== undefined) {
    throw new AppError("CREDENTIAL_UNAVAILABLE", `${subject} ${problem}`);
  }
  return new Secret(text);
}

/** Why a text cannot serve as a credential; undefined when it can. Never quotes it. */
export function valueProblem(text: string): string | undefined {
  if (text === "") return "is empty";
  if (!/^[\x21-\x7e]+(?: [\x21-\x7e]+)*$/.test(text)) {
    return "has line breaks or characters that cannot stand in a request header";
  }
  if (text.length < MIN_CREDENTIAL_BYTES) return `is shorter than ${MIN_CREDENTIAL_BYTES} bytes`;
  if (text.length > MAX_CREDENTIAL_BYTES) return `is longer than ${MAX_CREDENTIAL_BYTES} bytes`;
  return undefined;
}

/** Throws CREDENTIAL_UNAVAILABLE for an entry whose value is in a vault: there is none here. */
export function secretRefOf(request: CredentialRequest): { name: string; key: string } {
  const { secretRef } = request.entry;
  if (secretRef !== undefined) return secretRef;
  throw new AppError(
    "CREDENTIAL_UNAVAILABLE",
    `${describeEntry(request)} refers to a vault, and none is set up for this install; ` +
      "set one up (docs/guides/vault.md) or name a Secret in secretRef",
  );
}

export function describeEntry(request: CredentialRequest): string {
  return `entry "${request.entry.name}" of credential vault "${request.vault}"`;
}

export function describePlace({ tenant, vault, entry }: CredentialRequest): string {
  const { secretRef, vaultRef } = entry;
  if (secretRef !== undefined) {
    return `key "${secretRef.key}" of secret "${secretRef.name}" in namespace "${tenant}"`;
  }
  return `key "${vaultRef?.key ?? ""}" at "${vaultRef?.path ?? ""}" in the vault's folder of ${tenant}/${vault}`;
}
