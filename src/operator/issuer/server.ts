import { type TokensResponse, tokensRequest } from "../../protocol/proxy-api.ts";
import { AppError } from "../../runtime/errors.ts";
import { createHttpServer, type HttpServer } from "../../runtime/http.ts";
import type { TokenIssuer } from "./issuer.ts";
import type { TokenReviewer } from "./token-review.ts";

export interface IssuerServerDeps {
  issuer: TokenIssuer;
  reviewer: TokenReviewer;
  /** Self-signed; harness pods pin the certificate. PEM. */
  tls: { key: string; cert: string };
  /** Called once per request for tokens; metrics. */
  onIssued: (outcome: "ok" | "refused") => void;
}

/** The issuer's listener, on every operator replica: `POST /v1/tokens`, `GET /v1/keys` over TLS. */
export function createIssuerServer(deps: IssuerServerDeps): HttpServer {
  const server = createHttpServer({ bodyLimitBytes: 16 * 1024, tls: deps.tls });
  server.get("/v1/keys", async () => await deps.issuer.keys());
  server.post("/v1/tokens", (request) =>
    answerTokens(deps, request.headers.authorization, request.body),
  );
  return server;
}

async function answerTokens(
  { issuer, reviewer, onIssued }: IssuerServerDeps,
  authorization: string | undefined,
  body: unknown,
): Promise<TokensResponse> {
  try {
    const caller = await reviewer.review(bearerToken(authorization));
    const parsed = tokensRequest.safeParse(body);
    if (!parsed.success) throw new AppError("INPUT_INVALID", "not a request for tokens");
    const answer = await issuer.issue(parsed.data, caller);
    onIssued("ok");
    return answer;
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
