import { readFile } from "node:fs/promises";
import { Agent, request } from "undici";
import { z } from "zod";
import {
  checkpointResponse,
  ISSUER_TLS_NAME,
  type TokensRequest,
  type TokensResponse,
  tokensResponse,
  type VaultTokenRequest,
  type VaultTokenResponse,
  vaultTokenResponse,
} from "../protocol/proxy-api.ts";
import type { AuditCheckpoint, AuditCheckpoints } from "../protocol/proxy-ports.ts";
import type { Jwks } from "../protocol/tokens.ts";
import { AppError, ERROR_CODES, type ErrorCode } from "../runtime/errors.ts";
import { TIMEOUTS } from "./limits.ts";

/** What the proxy needs of the issuer; local mode hands in the issuer of its own process. */
export interface IssuerPort {
  /** Rejects with the issuer's own code, or UNAVAILABLE when it does not answer. */
  issue(request: TokensRequest): Promise<TokensResponse>;
  keys(): Promise<Jwks>;
  /** A token for one login at the vault. Rejects likewise. */
  vaultToken(request: VaultTokenRequest): Promise<VaultTokenResponse>;
}

const errorAnswer = z.object({
  error: z.object({
    code: z.custom<ErrorCode>((code) => typeof code === "string" && code in ERROR_CODES),
    message: z.string().max(2048),
  }),
});

const keysAnswer = z.object({
  keys: z.array(z.looseObject({ kty: z.literal("OKP"), kid: z.string() })).min(1),
});

export interface IssuerClientOptions {
  url: string;
  /** The issuer's own certificate in PEM: the only one that is trusted. */
  certificate: string;
  /** Projected service account token; read at each call, because the kubelet renews it. */
  tokenFile: string;
}

/** Asks the operator's issuer over TLS with its pinned certificate. */
export class IssuerClient implements IssuerPort, AuditCheckpoints {
  readonly #options: IssuerClientOptions;
  readonly #agent: Agent;

  constructor(options: IssuerClientOptions) {
    this.#options = options;
    this.#agent = new Agent({
      allowH2: false,
      connect: {
        ca: options.certificate,
        servername: ISSUER_TLS_NAME,
        timeout: TIMEOUTS.issuerMs,
      },
      headersTimeout: TIMEOUTS.issuerMs,
      bodyTimeout: TIMEOUTS.issuerMs,
      maxResponseSize: 256 * 1024,
    });
  }

  async issue(body: TokensRequest): Promise<TokensResponse> {
    return await this.#ask("/v1/tokens", body, tokensResponse);
  }

  async vaultToken(body: VaultTokenRequest): Promise<VaultTokenResponse> {
    return await this.#ask("/v1/vault-tokens", body, vaultTokenResponse);
  }

  async keepCheckpoint(checkpoint: AuditCheckpoint): Promise<void> {
    await this.#ask("/v1/audit-checkpoints", checkpoint, checkpointResponse);
  }

  async keys(): Promise<Jwks> {
    const parsed = keysAnswer.safeParse(await this.#send("GET", "/v1/keys", {}));
    if (!parsed.success) throw oddAnswer();
    return parsed.data;
  }

  async close(): Promise<void> {
    await this.#agent.destroy();
  }

  async #ask<T>(path: string, body: object, schema: z.ZodType<T>): Promise<T> {
    const token = await this.#serviceAccountToken();
    const answer = await this.#send("POST", path, {
      headers: { "content-type": "application/json", authorization: `Bearer ${token}` },
      body: JSON.stringify(body),
    });
    const parsed = schema.safeParse(answer);
    if (!parsed.success) throw oddAnswer();
    return parsed.data;
  }

  async #serviceAccountToken(): Promise<string> {
    try {
      return (await readFile(this.#options.tokenFile, "utf8")).trim();
    } catch (cause) {
      throw new AppError("UNAVAILABLE", "the service account token for the issuer is missing", {
        cause,
        retryable: true,
      });
    }
  }

  async #send(
    method: "GET" | "POST",
    path: string,
    options: { headers?: Record<string, string>; body?: string },
  ): Promise<unknown> {
    let status: number;
    let answer: unknown;
    try {
      const response = await request(new URL(path, this.#options.url), {
        ...options,
        method,
        dispatcher: this.#agent,
      });
      status = response.statusCode;
      answer = await response.body.json();
    } catch (cause) {
      throw new AppError("UNAVAILABLE", "the issuer does not answer", { cause, retryable: true });
    }
    if (status === 200) return answer;
    const parsed = errorAnswer.safeParse(answer);
    if (!parsed.success) throw oddAnswer();
    // An issuer whose store or API server is away says so; only that passes by itself.
    const { code, message } = parsed.data.error;
    throw new AppError(code, message, { retryable: status >= 500 });
  }
}

function oddAnswer(): AppError {
  return new AppError("UNAVAILABLE", "the issuer answered with something else", {
    retryable: true,
  });
}
