import { createLocalJWKSet, jwtVerify, SignJWT } from "jose";
import { z } from "zod";
import { AppError } from "../runtime/errors.ts";
import { ISSUER, type Jwks, type SigningKey } from "./tokens.ts";

/**
 * Checkpoints of audit chains, as the issuer signs them. The type differs from that of the tokens, so
 * neither passes for the other. They have no end of life: a log may be verified years later.
 */
const TYPE = "drover-checkpoint+jwt";
const AUDIENCE = "drover-audit";

const claims = z.object({
  pod: z.string().min(1).describe("UID of the pod that the issuer authenticated"),
  chain: z.string().min(1),
  seq: z.int().min(1),
  hash: z.string().describe("of the record `seq`"),
  iat: z.int(),
});

export interface SignedCheckpoint {
  podUid: string;
  chain: string;
  seq: number;
  hash: string;
  /** Epoch ms, by the issuer's clock. */
  signedAt: number;
}

export async function signCheckpoint(
  key: SigningKey,
  { podUid, chain, seq, hash, signedAt }: SignedCheckpoint,
): Promise<string> {
  return await new SignJWT({ pod: podUid, chain, seq, hash })
    .setProtectedHeader({ alg: "EdDSA", kid: key.kid, typ: TYPE })
    .setIssuer(ISSUER)
    .setAudience(AUDIENCE)
    .setIssuedAt(Math.floor(signedAt / 1000))
    .sign(key.privateJwk);
}

/** Checks each with the key whose id it names. Rejects with UNAUTHENTICATED, which says why. */
export function checkpointReader(jwks: Jwks): (signed: string) => Promise<SignedCheckpoint> {
  const keys = createLocalJWKSet(jwks);
  return async (signed) => {
    try {
      const { payload } = await jwtVerify(signed, keys, {
        algorithms: ["EdDSA"],
        issuer: ISSUER,
        audience: AUDIENCE,
        typ: TYPE,
      });
      const { pod, chain, seq, hash, iat } = claims.parse(payload);
      return { podUid: pod, chain, seq, hash, signedAt: iat * 1000 };
    } catch (cause) {
      throw new AppError("UNAUTHENTICATED", `it is not signed by the issuer: ${reasonOf(cause)}`);
    }
  };
}

/** jose's code only: its messages may quote what it was given. */
function reasonOf(error: unknown): string {
  const code =
    typeof error === "object" && error !== null && "code" in error ? error.code : undefined;
  if (code === "ERR_JWKS_NO_MATCHING_KEY") return "none of the keys has the id it names";
  if (code === "ERR_JWS_SIGNATURE_VERIFICATION_FAILED") return "its signature is wrong";
  return typeof code === "string" ? code : "it is no checkpoint";
}
