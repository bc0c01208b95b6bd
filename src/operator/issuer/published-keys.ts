import { createPublicKey } from "node:crypto";
import type { KubeClient } from "../../kube/client.ts";
import { isNotFound } from "../../kube/errors.ts";
import { configMaps } from "../../kube/resources.ts";
import type { Jwks } from "../../protocol/tokens.ts";
import { AppError } from "../../runtime/errors.ts";

/** The ConfigMap the chart ships empty; the operator may patch this one name, and make none. */
export const ISSUER_KEYS = "drover-issuer-keys";

export interface PublishedKeysDeps {
  client: Pick<KubeClient, "patch">;
  /** Namespace of the install. */
  namespace: string;
}

/**
 * Puts the issuer's public keys where a person who sets up a vault reads them
 * (docs/design/security.md#vault), as PEM (`keys.pem`) and as JWKS (`jwks.json`). Every replica
 * writes the same. Throws CONFIG_INVALID when the ConfigMap is missing, or what the client throws.
 */
export async function publishKeys(
  { client, namespace }: PublishedKeysDeps,
  jwks: Jwks,
): Promise<void> {
  const data = { "keys.pem": pemOf(jwks), "jwks.json": JSON.stringify(jwks) };
  try {
    const at = { namespace, name: ISSUER_KEYS };
    await client.patch(configMaps, at, { kind: "merge", body: { data } });
  } catch (error) {
    if (!isNotFound(error)) throw error;
    throw new AppError(
      "CONFIG_INVALID",
      `config map "${ISSUER_KEYS}" in namespace "${namespace}" does not exist; the chart makes it empty`,
    );
  }
}

function pemOf({ keys }: Jwks): string {
  return keys
    .map((jwk) =>
      createPublicKey({ key: { ...jwk }, format: "jwk" }).export({ type: "spki", format: "pem" }),
    )
    .join("");
}
