import type { Dispatcher } from "undici";
import { AppError } from "../../../runtime/errors.ts";
import { parseJsonText } from "../../json-text.ts";
import { MAX_JSON_DEPTH } from "../../limits.ts";
import type { MemoryHold } from "../../memory-budget.ts";
import { unusableAnswer, upstreamError } from "../../upstream-errors.ts";
import { rpcError } from "./messages.ts";
import type { Target } from "./target.ts";

type Answer = Dispatcher.ResponseData;

/** Statuses that say nothing to an MCP client; the others (400, 404, 405) are part of the protocol. */
export function isFailure(status: number): boolean {
  return status === 401 || status === 403 || status === 429 || status >= 500;
}

/** FORBIDDEN: the server did not take the credential. CREDENTIAL_NOT_FOUND: it wants one. */
export function failure(
  { what, credential, nearMisses }: Pick<Target, "what" | "credential" | "nearMisses">,
  { statusCode }: Pick<Answer, "statusCode">,
): AppError {
  switch (statusCode) {
    case 401:
    case 403:
      if (credential === undefined) return wantsCredential(what, statusCode, nearMisses);
      return new AppError(
        "FORBIDDEN",
        `${what} did not accept credential "${credential.id}" (status ${statusCode})`,
        { details: { version: credential.version } },
      );
    case 429:
      return new AppError("UPSTREAM_REFUSED", `${what} asks for fewer requests (status 429)`, {
        retryable: true,
      });
    default:
      return unusableAnswer(`${what} answered with status ${statusCode}`);
  }
}

/** Names the entries that were nearly meant: else a slip in a URL would look like a refusal only. */
function wantsCredential(what: string, status: number, nearMisses: readonly string[]): AppError {
  const hint =
    nearMisses.length === 0
      ? "no entry of the session's vaults is for it; add one with its exact URL"
      : `no entry has exactly its URL; nearly: ${nearMisses.join("; ")}`;
  return new AppError(
    "CREDENTIAL_NOT_FOUND",
    `${what} was asked without a credential and refused (status ${status}): ${hint}`,
  );
}

/** The whole body; throws UPSTREAM_REFUSED past `limit` bytes, or when there is no room for it. */
export async function readText(
  what: string,
  answer: Answer,
  { limit, memory }: { limit: number; memory: MemoryHold | undefined },
): Promise<string> {
  const chunks: Buffer[] = [];
  let size = 0;
  try {
    for await (const chunk of answer.body) {
      const bytes = Buffer.from(chunk);
      size += bytes.length;
      if (size > limit)
        throw unusableAnswer(`${what} answered with more than ${limit} bytes`, { limit });
      memory?.add(bytes.length);
      chunks.push(bytes);
    }
  } catch (error) {
    throw upstreamError(what, error);
  }
  return Buffer.concat(chunks).toString("utf8");
}

/** The server's own error object, by which clients tell the protocol's era; else one of ours. */
export function errorBodyOf(text: string, what: string, { statusCode }: Answer): unknown {
  try {
    return parseJsonText(text, MAX_JSON_DEPTH);
  } catch {
    return rpcError(null, -32_000, `${what} answered with status ${statusCode}`);
  }
}
