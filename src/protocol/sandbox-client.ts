import { z } from "zod";
import { withDeadline } from "../runtime/abort.ts";
import type { Clock } from "../runtime/clock.ts";
import { AppError, codeOf, ERROR_CODES, type ErrorCode, hasCode } from "../runtime/errors.ts";
import type { Logger } from "../runtime/logger.ts";
import { type ExecuteRequest, type ExecuteResponse, executeResponse } from "./sandbox-api.ts";
import { type ToolDeclaration, toolsResponse } from "./sandbox-tools.ts";

/**
 * Client of the sandbox daemon (sandbox-api.ts). Every method throws an AppError: the daemon's own
 * code where it answered, UNAVAILABLE (retryable) when it could not be reached or its answer was
 * lost, TIMEOUT when it stays silent. An abort of `signal` ends the waiting with the signal's reason
 * and cancels nothing in the sandbox.
 */
export interface SandboxClient {
  /**
   * Sends the call and waits until it is over, minutes if need be. A lost answer is asked for again
   * by id. After UNAVAILABLE or TIMEOUT the call may or may not run: ask again with the same request.
   */
  execute(address: string, request: ExecuteRequest, signal?: AbortSignal): Promise<ExecuteResponse>;
  /** What became of a call; waits up to `waitMs` for its end. NOT_FOUND: the daemon never saw it. */
  result(
    address: string,
    id: string,
    waitMs: number,
    signal?: AbortSignal,
  ): Promise<ExecuteResponse>;
  cancel(address: string, id: string, signal?: AbortSignal): Promise<ExecuteResponse>;
  ack(address: string, ids: readonly string[], signal?: AbortSignal): Promise<void>;
  tools(address: string, signal?: AbortSignal): Promise<ToolDeclaration[]>;
}

export interface SandboxClientOptions {
  /** Global `fetch` keeps connections alive. */
  fetch: typeof fetch;
  clock: Clock;
  logger: Logger;
  /** A valid execute token for the sandbox at this address. */
  token: (address: string) => Promise<string>;
}

/** How long one request waits for the end of a call; then it asks again. A dead peer is noticed soon after. */
const WAIT_MS = 20_000;
/** Time beyond the asked wait until a silent daemon is given up. */
const GRACE_MS = 10_000;
/** How often in a row an answer may be lost before the caller is told. */
const MAX_LOST_ANSWERS = 3;

/** A result is at most 192 KiB of JSON and some lines. */
const MAX_ANSWER_BYTES = 1024 * 1024;

interface HttpCall {
  method: "GET" | "POST";
  path: string;
  body?: unknown;
  waitMs?: number;
  signal?: AbortSignal | undefined;
}

export function createSandboxClient(options: SandboxClientOptions): SandboxClient {
  const client: SandboxClient = {
    execute: async (address, request, signal) =>
      wellFormed(await executeToEnd(options, client, address, request, signal)),
    result: async (address, id, waitMs, signal) => {
      const path = `/v1/execute/${encodeURIComponent(id)}?waitMs=${waitMs}`;
      const call = { method: "GET" as const, path, waitMs, signal };
      return wellFormed(await send(options, address, executeResponse, call));
    },
    cancel: async (address, id, signal) => {
      const path = `/v1/execute/${encodeURIComponent(id)}/cancel`;
      const call = { method: "POST" as const, path, signal };
      return wellFormed(await send(options, address, executeResponse, call));
    },
    ack: async (address, ids, signal) => {
      const call = { method: "POST" as const, path: "/v1/ack", body: { ids }, signal };
      await send(options, address, z.unknown(), call);
    },
    tools: async (address, signal) => {
      const call = { method: "GET" as const, path: "/v1/tools", signal };
      return (await send(options, address, toolsResponse, call)).tools;
    },
  };
  return client;
}

/** Half a surrogate pair in a result would make every later request of the session invalid. */
function wellFormed(response: ExecuteResponse): ExecuteResponse {
  if (response.result === undefined) return response;
  const content = response.result.content.toWellFormed();
  return { ...response, result: { ...response.result, content } };
}

async function executeToEnd(
  options: SandboxClientOptions,
  client: SandboxClient,
  address: string,
  request: ExecuteRequest,
  signal: AbortSignal | undefined,
): Promise<ExecuteResponse> {
  let accepted = false;
  let lost = 0;
  for (;;) {
    try {
      const response = accepted
        ? await client.result(address, request.id, WAIT_MS, signal)
        : await post(options, address, request, signal);
      if (response.state === "done") return response;
      accepted = true;
      lost = 0;
    } catch (error) {
      // The daemon did not get it, or restarted before it began: sending it again is safe by its id.
      if (accepted && hasCode(error, "NOT_FOUND")) accepted = false;
      else if (!wasAnswerLost(error)) throw error;
      lost += 1;
      if (lost >= MAX_LOST_ANSWERS) throw error;
      options.logger.debug({ toolCallId: request.id, attempt: lost }, "asking again by id");
    }
  }
}

function post(
  options: SandboxClientOptions,
  address: string,
  request: ExecuteRequest,
  signal: AbortSignal | undefined,
): Promise<ExecuteResponse> {
  return send(options, address, executeResponse, {
    method: "POST",
    path: `/v1/execute?waitMs=${WAIT_MS}`,
    body: request,
    waitMs: WAIT_MS,
    signal,
  });
}

async function send<T>(
  options: SandboxClientOptions,
  address: string,
  schema: z.ZodType<T>,
  call: HttpCall,
): Promise<T> {
  const token = await options.token(address);
  const what = `${call.method} ${call.path.split("?")[0]} of the sandbox at ${address}`;
  const deadlineMs = (call.waitMs ?? 0) + GRACE_MS;
  const { status, text } = await withDeadline(
    options.clock,
    deadlineMs,
    what,
    (signal) => exchange(options.fetch, `http://${address}${call.path}`, call, token, signal),
    call.signal,
  ).catch((error: unknown) => {
    call.signal?.throwIfAborted();
    throw toAppError(error, what);
  });
  return parseAnswer(schema, status, text, what);
}

async function exchange(
  doFetch: typeof fetch,
  url: string,
  call: HttpCall,
  token: string,
  signal: AbortSignal,
): Promise<{ status: number; text: string }> {
  const response = await doFetch(url, {
    method: call.method,
    headers: {
      authorization: `Bearer ${token}`,
      ...(call.body === undefined ? {} : { "content-type": "application/json" }),
    },
    ...(call.body === undefined ? {} : { body: JSON.stringify(call.body) }),
    // A daemon never redirects; whoever does is not one.
    redirect: "error",
    signal,
  });
  return { status: response.status, text: await readText(response) };
}

/** The body as text. Code in a sandbox may pose as its daemon: what it sends is bounded. */
async function readText(response: Response): Promise<string> {
  const chunks: Uint8Array[] = [];
  let bytes = 0;
  for await (const chunk of response.body ?? []) {
    bytes += chunk.length;
    if (bytes > MAX_ANSWER_BYTES) {
      throw new AppError("INTERNAL", `the answer is larger than ${MAX_ANSWER_BYTES} bytes`);
    }
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString("utf8");
}

/** `details.connected` is false when no connection was made: nothing has reached the daemon. */
function toAppError(error: unknown, what: string): AppError {
  if (hasCode(error, "TIMEOUT") || hasCode(error, "INTERNAL")) return error;
  const cause = causeCode(error);
  const connected = !CONNECT_FAILURES.has(cause);
  const how = connected ? "the answer was lost" : "no connection";
  return new AppError("UNAVAILABLE", `${what}: ${how} (${cause})`, {
    cause: error,
    details: { connected },
    retryable: true,
  });
}

const CONNECT_FAILURES = new Set([
  "ECONNREFUSED",
  "EHOSTUNREACH",
  "ENETUNREACH",
  "ENOTFOUND",
  "EAI_AGAIN",
  "ETIMEDOUT",
  "UND_ERR_CONNECT_TIMEOUT",
]);

/** fetch hides the network's error in `cause`. */
function causeCode(error: unknown): string {
  if (typeof error === "object" && error !== null && "cause" in error) {
    const code = codeOf(error.cause);
    if (code !== undefined) return code;
  }
  return codeOf(error) ?? "unknown";
}

/** True when the daemon was reached and then its answer went missing. */
function wasAnswerLost(error: unknown): boolean {
  return hasCode(error, "UNAVAILABLE") && error.details["connected"] === true;
}

const errorAnswer = z.object({ error: z.object({ code: z.string(), message: z.string() }) });

function parseAnswer<T>(schema: z.ZodType<T>, status: number, text: string, what: string): T {
  const body = parseJson(text);
  if (status === 200) {
    const parsed = schema.safeParse(body);
    if (parsed.success) return parsed.data;
  }
  const answer = errorAnswer.safeParse(body);
  if (answer.success && isErrorCode(answer.data.error.code)) {
    const { code, message } = answer.data.error;
    throw new AppError(code, `${what}: ${message}`, { retryable: code === "UNAVAILABLE" });
  }
  throw new AppError("INTERNAL", `${what}: status ${status} with an answer that is not a daemon's`);
}

function isErrorCode(code: string): code is ErrorCode {
  return Object.hasOwn(ERROR_CODES, code);
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
