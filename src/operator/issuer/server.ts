import type { z } from "zod";
import { checkpointRequest, tokensRequest, vaultTokenRequest } from "../../protocol/proxy-api.ts";
import { AppError } from "../../runtime/errors.ts";
import { createHttpServer, type HttpServer } from "../../runtime/http.ts";
import type { Checkpoints } from "./checkpoints.ts";
import type { Caller } from "./decision.ts";
import type { TokenIssuer } from "./issuer.ts";
import type { TokenReviewer } from "./token-review.ts";

export interface IssuerServerDeps {
  issuer: TokenIssuer;
  checkpoints: Pick<Checkpoints, "keep">;
  reviewer: TokenReviewer;
  /** Self-signed; harness pods and the edge pin the certificate. PEM. */
  tls: { key: string; cert: string };
  /** Called once per request for tokens; metrics. */
  onIssued: (outcome: "ok" | "refused") => void;
}

/**
 * The issuer's listener, on every operator replica, over TLS: `POST /v1/tokens`,
 * `POST /v1/vault-tokens`, `POST /v1/audit-checkpoints`, `GET /v1/keys`.
 */
export function createIssuerServer(deps: IssuerServerDeps): HttpServer {
  const { issuer, checkpoints, onIssued } = deps;
  const server = createHttpServer({ bodyLimitBytes: 16 * 1024, tls: deps.tls });
  server.get("/v1/keys", async () => await issuer.keys());
  server.post("/v1/tokens", (request) =>
    counted(onIssued, () =>
      answer(deps, request, tokensRequest, (body, caller) => issuer.issue(body, caller)),
    ),
  );
  server.post("/v1/vault-tokens", (request) =>
    counted(onIssued, () =>
      answer(deps, request, vaultTokenRequest, (body, caller) => issuer.vaultToken(body, caller)),
    ),
  );
  server.post("/v1/audit-checkpoints", (request) =>
    answer(deps, request, checkpointRequest, async (body, caller) => {
      await checkpoints.keep(body, caller);
      return {};
    }),
  );
  return server;
}

async function counted<Answer>(
  count: IssuerServerDeps["onIssued"],
  issue: () => Promise<Answer>,
): Promise<Answer> {
  try {
    const issued = await issue();
    count("ok");
    return issued;
  } catch (error) {
    count("refused");
    throw error;
  }
}

async function answer<Body, Answer>(
  { reviewer }: Pick<IssuerServerDeps, "reviewer">,
  request: { headers: { authorization?: string | undefined }; body: unknown },
  schema: z.ZodType<Body>,
  issue: (body: Body, caller: Caller) => Promise<Answer>,
): Promise<Answer> {
  const caller = await reviewer.review(bearerToken(request.headers.authorization));
  const parsed = schema.safeParse(request.body);
  if (!parsed.success) throw new AppError("INPUT_INVALID", "not what this route is asked for");
  return await issue(parsed.data, caller);
}

function bearerToken(authorization: string | undefined): string {
  const token = /^Bearer ([\w.~+/=-]{1,8192})$/.exec(authorization ?? "")?.[1];
  if (token !== undefined) return token;
  throw new AppError(
    "UNAUTHENTICATED",
    "a service account token is needed: Authorization: Bearer …",
  );
}
