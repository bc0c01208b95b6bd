import { z } from "zod";
import { AppError, codeOf } from "../../runtime/errors.ts";

/** What a vault or the way to it can do to a call, as errors for people. */

const GUIDE = "docs/guides/vault.md";

/** Codes of Node's TLS for a certificate that is not to be trusted. */
const CERTIFICATE = /^(CERT_|UNABLE_TO_|SELF_SIGNED_|DEPTH_ZERO_|HOSTNAME_|ERR_TLS_CERT)/;

const errorBody = z.object({ errors: z.array(z.string()).min(1) });

/** The call got no answer; `deadlineMs` is set when that is because of our own deadline. */
export function connectionProblem(
  what: string,
  cause: unknown,
  deadlineMs: number | undefined,
): AppError {
  if (deadlineMs !== undefined) {
    return new AppError(
      "CREDENTIAL_UNAVAILABLE",
      `cannot ${what}: the vault did not answer within ${deadlineMs / 1000} s`,
      { retryable: true },
    );
  }
  const code = codeOf(cause) ?? "";
  if (CERTIFICATE.test(code)) {
    return new AppError(
      "CREDENTIAL_UNAVAILABLE",
      `cannot ${what}: the vault's certificate is not trusted (${code}); ` +
        "give its authority in DROVER_VAULT_CA, and an address that its certificate names",
      { cause },
    );
  }
  return new AppError("CREDENTIAL_UNAVAILABLE", `cannot ${what}: the vault does not answer`, {
    cause,
    retryable: true,
  });
}

/** The vault answered, with a status that is not a success. */
export function serverProblem(
  what: string,
  { status, text }: { status: number; text: string },
): AppError {
  const { reason, retryable } = reasonOf(status);
  const words = vaultWords(text);
  return new AppError("CREDENTIAL_UNAVAILABLE", `cannot ${what}: ${reason}`, {
    // For logs and the status of the CredentialVault; the model is told our own words only.
    ...(words === "" ? {} : { cause: new Error(`the vault says: ${words}`) }),
    details: { status },
    retryable,
  });
}

function reasonOf(status: number): { reason: string; retryable: boolean } {
  // Vault has this status for sealed, standby without leader, and in maintenance.
  if (status === 503) return { reason: "the vault is sealed or not active", retryable: true };
  if (status === 429) return { reason: "the vault has too many requests (429)", retryable: true };
  if (status >= 500) return { reason: `the vault answered ${status}`, retryable: true };
  if (status === 403) {
    return {
      reason: `the vault refuses it (403); compare its role and policy with ${GUIDE}`,
      retryable: false,
    };
  }
  return {
    reason: `the vault answered ${status}; compare its mounts and roles with ${GUIDE}`,
    retryable: false,
  };
}

/** What the vault says itself, without anything as long as a token. */
function vaultWords(text: string): string {
  try {
    const parsed = errorBody.safeParse(JSON.parse(text));
    if (!parsed.success) return "";
    const words = parsed.data.errors.join("; ").replaceAll(/\S{40,}/g, "…");
    return words.replaceAll(/\s+/g, " ").trim().slice(0, 200);
  } catch {
    return "";
  }
}
