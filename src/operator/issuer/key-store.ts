import { z } from "zod";
import type { KubeClient } from "../../kube/client.ts";
import { isConflict, isNotFound } from "../../kube/errors.ts";
import { type Secret as KubeSecret, secrets } from "../../kube/resources.ts";
import { ISSUER_TLS_NAME } from "../../protocol/proxy-api.ts";
import { generateSigningKey, type SigningKey } from "../../protocol/tokens.ts";
import type { Clock } from "../../runtime/clock.ts";
import { AppError } from "../../runtime/errors.ts";
import type { Rng } from "../../runtime/rng.ts";
import { createSelfSignedCertificate, type TlsIdentity } from "./certificate.ts";

/** The Secret the chart ships empty; the operator may get and patch this one name, and create none. */
export const ISSUER_SECRET = "drover-issuer-key";

/** Keys inside the Secret. */
const KEYS = { signing: "signing-key.json", tlsKey: "tls.key", tlsCert: "tls.crt" } as const;
const MAX_RACES = 5;

const signingKey = z.object({
  kid: z.string().min(1),
  privateJwk: z.looseObject({ kty: z.literal("OKP"), crv: z.literal("Ed25519"), d: z.string() }),
  publicJwk: z.looseObject({ kty: z.literal("OKP"), crv: z.literal("Ed25519"), x: z.string() }),
});

export interface IssuerKeys {
  signing: SigningKey;
  tls: TlsIdentity;
}

export interface KeyStoreDeps {
  client: Pick<KubeClient, "get" | "patch">;
  namespace: string;
  /** `drover-issuer-key` unless the install names another. */
  secretName: string;
  clock: Clock;
  rng: Rng;
}

/**
 * Reads the issuer's keys, or makes and stores them when the Secret is empty. Writes carry the
 * version that was read, so of two replicas that start at once one wins and the other reads its keys.
 * Throws CONFIG_INVALID when the Secret is missing or holds something else.
 */
export async function loadIssuerKeys(deps: KeyStoreDeps): Promise<IssuerKeys> {
  for (let race = 0; race < MAX_RACES; race += 1) {
    const secret = await getSecret(deps);
    const stored = storedKeys(secret, deps);
    if (stored !== undefined) return stored;
    const made = await makeKeys(deps);
    if (await storeKeys(deps, secret, made)) return made;
  }
  throw new AppError("UNAVAILABLE", `${describe(deps)} keeps changing while it is being filled`, {
    retryable: true,
  });
}

async function getSecret(deps: KeyStoreDeps): Promise<KubeSecret> {
  try {
    return await deps.client.get(secrets, { namespace: deps.namespace, name: deps.secretName });
  } catch (error) {
    if (!isNotFound(error)) throw error;
    throw new AppError(
      "CONFIG_INVALID",
      `${describe(deps)} does not exist; the chart makes it empty, or name another one`,
    );
  }
}

/** Undefined when the Secret is empty. Half filled is a mistake of somebody and is not overwritten. */
function storedKeys(secret: KubeSecret, deps: KeyStoreDeps): IssuerKeys | undefined {
  const texts = Object.values(KEYS).map((key) => decoded(secret.data?.[key]));
  if (texts.every((text) => text === undefined)) return undefined;
  const [signing, key, cert] = texts;
  const parsed = signingKey.safeParse(parseJson(signing ?? ""));
  if (!parsed.success || key === undefined || cert === undefined) {
    throw new AppError(
      "CONFIG_INVALID",
      `${describe(deps)} must hold ${Object.values(KEYS).join(", ")}, or nothing`,
    );
  }
  return { signing: parsed.data, tls: { key, cert } };
}

async function makeKeys({ clock, rng }: KeyStoreDeps): Promise<IssuerKeys> {
  return {
    signing: await generateSigningKey(rng.id("key")),
    tls: createSelfSignedCertificate(ISSUER_TLS_NAME, clock.now()),
  };
}

/** False when somebody else wrote first. */
async function storeKeys(
  deps: KeyStoreDeps,
  secret: KubeSecret,
  { signing, tls }: IssuerKeys,
): Promise<boolean> {
  const data = {
    [KEYS.signing]: encoded(JSON.stringify(signing)),
    [KEYS.tlsKey]: encoded(tls.key),
    [KEYS.tlsCert]: encoded(tls.cert),
  };
  const { resourceVersion } = secret.metadata;
  try {
    await deps.client.patch(
      secrets,
      { namespace: deps.namespace, name: deps.secretName },
      { kind: "merge", body: { metadata: { resourceVersion }, data } },
    );
    return true;
  } catch (error) {
    if (isConflict(error)) return false;
    throw error;
  }
}

function describe({ namespace, secretName }: KeyStoreDeps): string {
  return `secret "${secretName}" in namespace "${namespace}"`;
}

function decoded(value: string | undefined): string | undefined {
  return value === undefined || value === ""
    ? undefined
    : Buffer.from(value, "base64").toString("utf8");
}

function encoded(text: string): string {
  return Buffer.from(text, "utf8").toString("base64");
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
