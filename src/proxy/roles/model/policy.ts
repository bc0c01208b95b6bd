import type { IncomingHttpHeaders } from "node:http";
import { AppError } from "../../../runtime/errors.ts";
import { foreignCredentialPlace } from "../../foreign-credentials.ts";

/**
 * What may be asked of the model endpoint with the pool's key
 * (docs/design/security.md#foreign-credentials): messages and counting tokens. Files, batches and
 * administration would let a session reach what others stored there.
 */
export const MODEL_ROUTES: Readonly<Record<string, string>> = {
  "/model/v1/messages": "/v1/messages",
  "/model/v1/messages/count_tokens": "/v1/messages/count_tokens",
};

/**
 * Beta features by name without date. Left out on purpose are those that act outside the session's
 * hands or touch stored data: files, code execution, skills, the endpoint's own MCP client.
 */
const BETAS = new Set([
  "compact",
  "context-1m",
  "context-management",
  "effort",
  "extended-cache-ttl",
  "fine-grained-tool-streaming",
  "interleaved-thinking",
  "model-context-window-exceeded",
  "output-128k",
  "prompt-caching",
  "structured-outputs",
  "token-counting",
  "token-efficient-tools",
]);

const RESPONSE_HEADERS = ["content-type", "request-id", "retry-after", "x-should-retry"];

interface ModelRequest {
  contentType: string | undefined;
  version: string | undefined;
  beta: string | undefined;
  accept: string | undefined;
}

/** Headers for the endpoint, made from nothing: what is not here does not leave the pod. */
export function buildModelHeaders(request: ModelRequest): Record<string, string> {
  if (!/^application\/json\b/i.test(request.contentType ?? "")) {
    throw new AppError("INPUT_INVALID", "content-type must be application/json");
  }
  const version = request.version ?? "2023-06-01";
  if (!/^\d{4}-\d{2}-\d{2}$/.test(version)) {
    throw new AppError("INPUT_INVALID", "anthropic-version must be a date");
  }
  return {
    "content-type": "application/json",
    "anthropic-version": version,
    accept:
      request.accept?.includes("text/event-stream") === true
        ? "text/event-stream"
        : "application/json",
    "accept-encoding": "identity",
    ...(request.beta === undefined ? {} : { "anthropic-beta": checkBetas(request.beta) }),
  };
}

function checkBetas(header: string): string {
  const betas = header
    .split(",")
    .map((beta) => beta.trim())
    .filter((beta) => beta !== "");
  for (const beta of betas) {
    if (!BETAS.has(beta.replace(/-\d{4}-\d{2}-\d{2}$/, ""))) {
      throw new AppError(
        "INPUT_INVALID",
        `anthropic-beta "${beta.slice(0, 64)}" is not passed on by the proxy`,
      );
    }
  }
  return betas.join(",");
}

/**
 * Throws FOREIGN_CREDENTIAL for a credential in a header or in the query. `Authorization` is not
 * looked at here: what is not a session token has been refused before.
 */
export function checkForeignCredentials(headers: IncomingHttpHeaders, query: string): void {
  const where = foreignCredentialPlace(headers, query);
  if (where === undefined) return;
  throw new AppError(
    "FOREIGN_CREDENTIAL",
    `${where} brings a credential; the proxy alone adds the key of the model endpoint`,
  );
}

/** `?beta=true` is what the SDK adds for beta features; nothing else may be said in a query. */
export function checkModelQuery(query: string): string {
  if (query === "" || query === "beta=true") return query === "" ? "" : "?beta=true";
  throw new AppError("INPUT_INVALID", "the model routes take no query but beta=true");
}

export function isPassedModelHeader(name: string): boolean {
  return RESPONSE_HEADERS.includes(name) || name.startsWith("anthropic-ratelimit-");
}

/** An error in the Messages API's own form, so that its clients classify it. */
export function modelErrorBody(status: number, code: string, message: string) {
  return { type: "error", error: { type: modelErrorType(status), code, message } };
}

function modelErrorType(status: number): string {
  switch (status) {
    case 400:
      return "invalid_request_error";
    case 401:
      return "authentication_error";
    case 403:
      return "permission_error";
    case 404:
      return "not_found_error";
    case 413:
      return "request_too_large";
    case 429:
      return "rate_limit_error";
    case 504:
      return "timeout_error";
    default:
      return "api_error";
  }
}
