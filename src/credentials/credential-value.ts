import { AppError } from "../runtime/errors.ts";
import { Secret } from "../runtime/secret.ts";
import type { CredentialRequest } from "./credential-source.ts";

/** Shorter values cannot be redacted from answers without destroying ordinary text (security §12). */
export const MIN_CREDENTIAL_BYTES = 8;
const MAX_CREDENTIAL_BYTES = 8192;

/**
 * Checks stored text and wraps it; one line break at its end is forgiven, because editors add it.
 * Throws CREDENTIAL_UNAVAILABLE for values that cannot stand in a header or be found in answers.
 */
export function credentialValue(request: CredentialRequest, stored: string): Secret {
  const text = stored.replace(/\r?\n$/, "");
  const problem = problemOf(text);
  if (problem !== undefined) {
    throw new AppError(
      "CREDENTIAL_UNAVAILABLE",
      `${describeEntry(request)} cannot be used: the value of ${describePlace(request)} ${problem}`,
    );
  }
  return new Secret(text);
}

function problemOf(text: string): string | undefined {
  if (text === "") return "is empty";
  if (!/^[\x21-\x7e]+(?: [\x21-\x7e]+)*$/.test(text)) {
    return "has line breaks or characters that cannot stand in a request header";
  }
  if (text.length < MIN_CREDENTIAL_BYTES) return `is shorter than ${MIN_CREDENTIAL_BYTES} bytes`;
  if (text.length > MAX_CREDENTIAL_BYTES) return `is longer than ${MAX_CREDENTIAL_BYTES} bytes`;
  return undefined;
}

export function describeEntry(request: CredentialRequest): string {
  return `entry "${request.entry.name}" of credential vault "${request.vault}"`;
}

export function describePlace(request: CredentialRequest): string {
  const { name, key } = request.entry.secretRef;
  return `key "${key}" of secret "${name}" in namespace "${request.tenant}"`;
}
