import type { z } from "zod";
import { tokensRequest, vaultTokenRequest } from "../../protocol/proxy-api.ts";
import { AppError } from "../../runtime/errors.ts";
import { createHttpServer, type HttpServer } from "../../runtime/http.ts";
import type { Caller } from "./decision.ts";
import type { TokenIssuer } from "./issuer.ts";
import type { TokenReviewer } from "./token-review.ts";

export interface IssuerServerDeps {
  issuer: TokenIssuer;
  reviewer: TokenReviewer;
  /** Self-signed; harness pods and the edge pin the certificate. PEM. */
  tls: { key: string; cert: string };
  /** Called once per request for tokens; metrics. */
  onIssued: (outcome: "ok" | "refused") => void;
}

/**
 * The issuer's listener, on every operator replica, over TLS: `POST /v1/tokens`,
 * `POST /v1/vault-tokens`, `GET /v1/keys`.
 */
export function createIssuerServer(deps: IssuerServerDeps): HttpServer {
  const { issuer } = deps;
  const server = createHttpServer({ bodyLimitBytes: 16 * 1024, tls: deps.tls });
  server.get("/v1/keys", async () => await issuer.keys());
  server.post("/v1/tokens", (request) =>
    answer(deps, request, tokensRequest, (body, caller) => issuer.issue(body, caller)),
  );
  server.post("/v1/vault-tokens", (request) =>
    answer(deps, request, vaultTokenRequest, (body, caller) => issuer.vaultToken(body, caller)),
  );
  return server;
}

async function answer<Body, Answer>(
  { reviewer, onIssued }: IssuerServerDeps,
  request: { headers: { authorization?: string | undefined }; body: unknown },
  schema: z.ZodType<Body>,
  issue: (body: Body, caller: Caller) => Promise<Answer>,
): Promise<Answer> {
  try {
    const caller = await reviewer.review(bearerToken(request.headers.authorization));
    const parsed = schema.safeParse(request.body);
    if (!parsed.success) throw new AppError("INPUT_INVALID", "not a request for tokens");
    const issued = await issue(parsed.data, caller);
    onIssued("ok");
    return issued;
  } catch (error) {
    onIssued("refused");
    throw error;
  }
}

function bearerToken(authorization: string | undefined): string {
  const token = /^Bearer ([\w.~+/=-]{1,8192})$/.exec(authorization ?? "")?.[1];
  if (token !== undefined) return token;
  throw new AppError(
    "UNAUTHENTICATED",
    "a service account token is needed: Authorization: Bearer …",
  );
}
