import { hash as digest, randomUUID } from "node:crypto";
import { createLocalJWKSet, exportJWK, generateKeyPair, type JWK, jwtVerify, SignJWT } from "jose";
import { z } from "zod";
import { AppError } from "../runtime/errors.ts";

/**
 * Tokens that say who is asking (docs/design/security.md#tokens). Signed by the issuer with
 * Ed25519, checked by everyone else with its public keys. The algorithm is fixed, never read from
 * the token.
 */

export const ISSUER = "drover-issuer";
export const AUDIENCES = {
  session: "drover-proxy",
  execute: "drover-sandbox",
  sandbox: "drover-edge",
  vault: "vault",
} as const;
/** Life of session and execute tokens in seconds. */
export const TOKEN_LIFE_SECONDS = 600;
/**
 * Longest life of a sandbox token; its binding record ends it sooner
 * (docs/design/security.md#tokens).
 */
export const SANDBOX_TOKEN_LIFE_SECONDS = 86_400;
/** A vault token serves one login. */
export const VAULT_TOKEN_LIFE_SECONDS = 60;

/** Presented by a harness to its sidecar. */
export const sessionClaims = z.object({
  sub: z.string().describe("session id"),
  ten: z.string().describe("tenant (namespace)"),
  ver: z.string().describe("agent revision"),
  epoch: z.int().min(1),
  ltk: z.string().describe("sha256 of the lease token, hex"),
  pod: z.string().describe("UID of the harness pod"),
  exp: z.int(),
});
export type SessionClaims = z.output<typeof sessionClaims>;

/** Presented by a harness to a sandbox daemon. */
export const executeClaims = z.object({
  sub: z.string().describe("session id"),
  ten: z.string(),
  hand: z.string(),
  gen: z.int().min(1),
  sbx: z.string().describe("UID of the sandbox pod"),
  epoch: z.int().min(1),
  exp: z.int(),
});
export type ExecuteClaims = z.output<typeof executeClaims>;

/**
 * Presented by a sandbox to the edge. Good only while the binding record of the pod names the same
 * session and generation, and only from the pod's address.
 */
export const sandboxClaims = z.object({
  sub: z.string().describe("session id"),
  ten: z.string(),
  hand: z.string(),
  gen: z.int().min(1),
  sbx: z.string().describe("UID of the sandbox pod"),
  ip: z.string().describe("address of the sandbox pod"),
  exp: z.int(),
});
export type SandboxClaims = z.output<typeof sandboxClaims>;

/**
 * Presented by a proxy to the vault, whose policy is made from `ten` and `vlt`
 * (docs/design/security.md#vault).
 */
export interface VaultClaims {
  /** Session id, for the vault's audit. */
  sub: string;
  ten: string;
  /** Name of the CredentialVault. */
  vlt: string;
  /** `<ten>:<vlt>`: the vault's entity, one for each vault. */
  vid: string;
}

export type Jwks = { keys: JWK[] };

export interface SigningKey {
  kid: string;
  privateJwk: JWK;
  publicJwk: JWK;
}

export async function generateSigningKey(kid: string): Promise<SigningKey> {
  const pair = await generateKeyPair("EdDSA", { crv: "Ed25519", extractable: true });
  const common = { kid, alg: "EdDSA", use: "sig" };
  return {
    kid,
    privateJwk: { ...(await exportJWK(pair.privateKey)), ...common },
    publicJwk: { ...(await exportJWK(pair.publicKey)), ...common },
  };
}

/** Signs claims for `audience`, valid for `lifeSeconds` from `nowMs`. */
export async function signToken(
  key: SigningKey,
  audience: string,
  claims: Record<string, unknown>,
  times: { nowMs: number; lifeSeconds: number },
): Promise<string> {
  const iat = Math.floor(times.nowMs / 1000);
  return await new SignJWT(claims)
    .setProtectedHeader({ alg: "EdDSA", kid: key.kid, typ: "at+jwt" })
    .setIssuer(ISSUER)
    .setAudience(audience)
    .setJti(randomUUID())
    .setIssuedAt(iat)
    .setExpirationTime(iat + times.lifeSeconds)
    .sign(key.privateJwk);
}

/** Checks signature, algorithm, issuer, audience, life and shape; throws UNAUTHENTICATED that names which. */
export async function verifyToken<T>(
  jwks: Jwks,
  audience: string,
  schema: z.ZodType<T>,
  token: string,
  nowMs: number,
): Promise<T> {
  try {
    const { payload } = await jwtVerify(token, createLocalJWKSet(jwks), {
      algorithms: ["EdDSA"],
      issuer: ISSUER,
      audience,
      typ: "at+jwt",
      currentDate: new Date(nowMs),
    });
    return schema.parse(payload);
  } catch (cause) {
    const reason = cause instanceof z.ZodError ? "claims are missing" : joseReason(cause);
    throw new AppError("UNAUTHENTICATED", `token for ${audience} refused: ${reason}`);
  }
}

/** jose's code only: its messages may quote the token's content. */
function joseReason(error: unknown): string {
  if (typeof error === "object" && error !== null && "code" in error) return String(error.code);
  return "not a token";
}

export function leaseTokenHash(leaseToken: string): string {
  return digest("sha256", leaseToken, "hex");
}
