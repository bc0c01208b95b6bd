import { z } from "zod";

/**
 * Harness → sidecar, on loopback (docs/design/security.md#the-proxies). All routes but `/tokens`
 * carry
 * `Authorization: Bearer <session token>`.
 *
 *   POST /tokens                          TokensRequest → TokensResponse; the sidecar asks the issuer
 *   POST /model/v1/messages               the Messages API, streamed through; the key is added here
 *   POST /model/v1/messages/count_tokens  likewise
 *   POST|GET|DELETE /mcp/{server}         streamable HTTP of the named MCP server of the pinned agent
 */

export const tokensRequest = z.object({
  sessionId: z.string().min(1).max(128),
  tenant: z.string().min(1).max(253),
  leaseToken: z.string().min(1).max(256),
  /** Ask for an execute token for this sandbox too. */
  sandbox: z.object({ id: z.string().min(1).max(128) }).optional(),
  /** The token given before was refused: give a new one, not the one kept. */
  refresh: z.boolean().optional(),
});
export type TokensRequest = z.output<typeof tokensRequest>;

export const tokensResponse = z.object({
  sessionToken: z.string(),
  executeToken: z.string().optional(),
  /** With the execute token: what the sandbox shows to the edge; lives as long as its binding. */
  sandboxToken: z.string().optional(),
  /** Epoch ms; ask again well before. */
  expiresAt: z.int(),
});
export type TokensResponse = z.output<typeof tokensResponse>;

/**
 * Sidecar → issuer, TLS with a pinned certificate. `POST /v1/tokens` with TokensRequest as body and
 * `Authorization: Bearer <service account token, audience drover-issuer>` → TokensResponse.
 * `GET /v1/keys` → the public keys (JWKS), no token.
 */
export const ISSUER_AUDIENCE = "drover-issuer";

/**
 * Proxy → issuer: `POST /v1/vault-tokens` with VaultTokenRequest as body and the proxy's own service
 * account token → VaultTokenResponse. Whoever holds a credential of a session must show that it was
 * asked by that session: a sidecar hands in the session token it was given, the edge the sandbox token.
 */
export const vaultTokenRequest = z.object({
  token: z.string().min(1).max(4096),
  /** Name of one of the session's CredentialVaults. */
  vault: z.string().min(1).max(253),
});
export type VaultTokenRequest = z.output<typeof vaultTokenRequest>;

export const vaultTokenResponse = z.object({
  vaultToken: z.string(),
  /** Epoch ms. */
  expiresAt: z.int(),
});
export type VaultTokenResponse = z.output<typeof vaultTokenResponse>;

/**
 * Proxy → issuer: `POST /v1/audit-checkpoints` with CheckpointRequest as body and the proxy's own
 * service account token → `{}`, once the checkpoint is signed for the caller's pod and kept.
 */
export const checkpointRequest = z.object({
  chain: z.string().regex(/^[\w-]{1,64}$/),
  seq: z.int().min(1),
  hash: z.string().regex(/^[0-9a-f]{64}$/),
});
export type CheckpointRequest = z.output<typeof checkpointRequest>;

export const checkpointResponse = z.object({});

/** Name in the issuer's self-signed certificate; clients ask for it whatever address they dial. */
export const ISSUER_TLS_NAME = "drover-issuer";
