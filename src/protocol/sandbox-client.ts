import { z } from "zod";
import { withDeadline } from "../runtime/abort.ts";
import type { Clock } from "../runtime/clock.ts";
import { AppError, codeOf, describeError, type ErrorCode, hasCode } from "../runtime/errors.ts";
import type { Logger } from "../runtime/logger.ts";
import { Pace } from "./pace.ts";
import {
  type ExecuteRequest,
  type ExecuteResponse,
  executeResponse,
  type RepositoriesRequest,
  type RepositoriesResponse,
  repositoriesResponse,
} from "./sandbox-api.ts";
import { type ToolDeclaration, toolsResponse } from "./sandbox-tools.ts";

/**
 * Client of the sandbox daemon (sandbox-api.ts). Every method throws an AppError: the daemon's own
 * code where it answered, UNAVAILABLE (retryable) when it could not be reached or its answer was
 * lost, TIMEOUT when it stays silent, INTERNAL when its answer is not a daemon's, and the token
 * source's own code when there is no token. When the daemon has not answered, `details.exchange` says
 * why: one of EXCHANGE_FAILURES. An abort of `signal` ends the waiting with the signal's reason and
 * cancels nothing in the sandbox.
 *
 * Code in a sandbox may pose as its daemon. So each answer has a limit and must fit what was asked,
 * its texts are cut before anybody uses them, and one who always says "not yet" is asked less and less
 * often.
 */
export interface SandboxClient {
  /**
   * Sends the call and waits until it is over, minutes if need be. A lost answer is asked for again
   * by id. `details.sent` of an error is false when no daemon has taken the call; otherwise it may or
   * may not run: ask again with the same request. `onAnswer` is called for each answer that is no error of its own.
   */
  execute(
    address: string,
    request: ExecuteRequest,
    signal?: AbortSignal,
    onAnswer?: () => void,
  ): Promise<ExecuteResponse>;
  /** What became of a call; waits up to `waitMs` for its end. NOT_FOUND: the daemon never saw it. */
  result(
    address: string,
    id: string,
    waitMs: number,
    signal?: AbortSignal,
  ): Promise<ExecuteResponse>;
  cancel(address: string, id: string, signal?: AbortSignal): Promise<ExecuteResponse>;
  ack(address: string, ids: readonly string[], signal?: AbortSignal): Promise<void>;
  /**
   * Waits until every repository is ready or failed, an hour at most: then some are `cloning`. To ask
   * again repeats nothing. Gives one state for each that was asked for.
   */
  repositories(
    address: string,
    request: RepositoriesRequest,
    signal?: AbortSignal,
  ): Promise<RepositoriesResponse["repositories"]>;
  tools(address: string, signal?: AbortSignal): Promise<ToolDeclaration[]>;
}

const EXCHANGE_FAILURES = [
  "no_token",
  "no_connection",
  "answer_lost",
  "silent",
  "not_understood",
] as const;
/**
 * Why a daemon has not answered. `no_token`: it was not even asked. `no_connection`: nothing has
 * reached it. `answer_lost`, `silent`: it may have got what was sent. `not_understood`: something
 * answered, and not as a daemon does; it may have got what was sent.
 */
export type ExchangeFailure = (typeof EXCHANGE_FAILURES)[number];

/** Undefined for an error that is the daemon's answer. */
export function exchangeFailure(error: unknown): ExchangeFailure | undefined {
  if (typeof error !== "object" || error === null || !("details" in error)) return undefined;
  const { details } = error;
  if (typeof details !== "object" || details === null || !("exchange" in details)) return undefined;
  return EXCHANGE_FAILURES.find((failure) => failure === details.exchange);
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

/** A clone gets ten minutes, and several may wait for each other. */
const REPOSITORIES_MS = 3_600_000;

/** A result is at most 192 KiB of JSON and some lines. */
const MAX_ANSWER_BYTES = 1024 * 1024;
/** What a daemon gives as a reason is for reading, in results and in the log. */
const MAX_MESSAGE_CHARS = 2000;

interface HttpCall {
  method: "GET" | "POST" | "PUT";
  path: string;
  body?: unknown;
  waitMs?: number;
  signal?: AbortSignal | undefined;
}

export function createSandboxClient(options: SandboxClientOptions): SandboxClient {
  const client: SandboxClient = {
    execute: async (address, request, signal, onAnswer) => {
      const call = { address, request, signal, onAnswer: onAnswer ?? (() => {}) };
      return await executeToEnd(options, client, call);
    },
    result: async (address, id, waitMs, signal) => {
      const path = `/v1/execute/${encodeURIComponent(id)}?waitMs=${waitMs}`;
      const call = { method: "GET" as const, path, waitMs, signal };
      return checked(await send(options, address, executeResponse, call), id, address);
    },
    cancel: async (address, id, signal) => {
      const path = `/v1/execute/${encodeURIComponent(id)}/cancel`;
      const call = { method: "POST" as const, path, signal };
      return checked(await send(options, address, executeResponse, call), id, address);
    },
    ack: async (address, ids, signal) => {
      const call = { method: "POST" as const, path: "/v1/ack", body: { ids }, signal };
      await send(options, address, z.unknown(), call);
    },
    repositories: async (address, request, signal) =>
      await repositoriesToEnd(options, address, request, signal),
    tools: async (address, signal) => {
      const call = { method: "GET" as const, path: "/v1/tools", signal };
      return (await send(options, address, toolsResponse, call)).tools;
    },
  };
  return client;
}

/**
 * The answer for this call. Half a surrogate pair in a result would make every later request of the
 * session invalid.
 */
function checked(response: ExecuteResponse, id: string, address: string): ExecuteResponse {
  if (response.id !== id) {
    throw notUnderstood(`the sandbox at ${address}: an answer for another call than ${id}`);
  }
  if (response.result === undefined) return response;
  const content = response.result.content.toWellFormed();
  return { ...response, result: { ...response.result, content } };
}

async function repositoriesToEnd(
  options: SandboxClientOptions,
  address: string,
  request: RepositoriesRequest,
  signal: AbortSignal | undefined,
): Promise<RepositoriesResponse["repositories"]> {
  const pace = new Pace(options.clock);
  const end = options.clock.monotonic() + REPOSITORIES_MS;
  for (;;) {
    await pace.next(signal);
    const { repositories } = await send(options, address, repositoriesResponse, {
      method: "PUT",
      path: `/v1/repositories?waitMs=${WAIT_MS}`,
      body: request,
      waitMs: WAIT_MS,
      signal,
    });
    const isLast = options.clock.monotonic() >= end;
    if (isLast || repositories.every(({ state }) => state !== "cloning")) {
      return statesOf(request, repositories);
    }
  }
}

/** One for each that was asked for, whatever else the answer holds. */
function statesOf(
  { repositories }: RepositoriesRequest,
  answered: RepositoriesResponse["repositories"],
): RepositoriesResponse["repositories"] {
  const byName = new Map(answered.map((state) => [state.name, state]));
  return repositories.map(({ name }) => {
    const { state, message } = byName.get(name) ?? {
      state: "failed" as const,
      message: "the sandbox did not say what became of it",
    };
    return message === undefined ? { name, state } : { name, state, message: cut(message) };
  });
}

function cut(message: string): string {
  if (message.length <= MAX_MESSAGE_CHARS) return message.toWellFormed();
  return `${message.slice(0, MAX_MESSAGE_CHARS)}…`.toWellFormed();
}

interface ExecuteCall {
  address: string;
  request: ExecuteRequest;
  signal: AbortSignal | undefined;
  onAnswer: () => void;
}

async function executeToEnd(
  options: SandboxClientOptions,
  client: SandboxClient,
  { address, request, signal, onAnswer }: ExecuteCall,
): Promise<ExecuteResponse> {
  let accepted = false;
  let sent = false;
  let lost = 0;
  const pace = new Pace(options.clock);
  for (;;) {
    await pace.next(signal);
    try {
      const response = accepted
        ? await client.result(address, request.id, WAIT_MS, signal)
        : checked(await post(options, address, request, signal), request.id, address);
      onAnswer();
      sent = true;
      if (response.state === "done") return response;
      accepted = true;
      lost = 0;
    } catch (error) {
      signal?.throwIfAborted();
      sent ||= !accepted && mayHaveBeenTaken(error);
      // The daemon did not get it, or restarted before it began: sending it again is safe by its id.
      if (accepted && hasCode(error, "NOT_FOUND")) {
        accepted = false;
        onAnswer();
      } else if (exchangeFailure(error) !== "answer_lost") throw withDetails(error, { sent });
      lost += 1;
      if (lost >= MAX_LOST_ANSWERS) throw withDetails(error, { sent });
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
  const token = await options.token(address).catch((error: unknown) => {
    call.signal?.throwIfAborted();
    throw withDetails(error, { exchange: "no_token" satisfies ExchangeFailure });
  });
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
      throw notUnderstood(`the answer is larger than ${MAX_ANSWER_BYTES} bytes`);
    }
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString("utf8");
}

function toAppError(error: unknown, what: string): AppError {
  if (hasCode(error, "TIMEOUT")) return withDetails(error, { exchange: "silent" });
  if (hasCode(error, "INTERNAL")) return withDetails(error, {}, `${what}: `);
  const cause = causeCode(error);
  const failure: ExchangeFailure = CONNECT_FAILURES.has(cause) ? "no_connection" : "answer_lost";
  const how = failure === "answer_lost" ? "the answer was lost" : "no connection";
  return new AppError("UNAVAILABLE", `${what}: ${how} (${cause})`, {
    cause: error,
    details: { exchange: failure },
    retryable: true,
  });
}

/** The same error with more to decide by; what is no error of ours is a bug of who threw it. */
function withDetails(error: unknown, more: Record<string, unknown>, prefix = ""): AppError {
  const ours = error instanceof AppError ? error : undefined;
  return new AppError(ours?.code ?? "INTERNAL", `${prefix}${describeError(error)}`, {
    cause: ours?.cause ?? error,
    details: { ...ours?.details, ...more },
    retryable: ours?.retryable ?? false,
  });
}

/** Answers with which a daemon says that it has not begun the call (sandbox-api.ts). */
const NOT_TAKEN: ReadonlySet<string> = new Set<ErrorCode>([
  "UNAVAILABLE",
  "UNAUTHENTICATED",
  "FORBIDDEN",
  "SANDBOX_BOUND",
]);

function mayHaveBeenTaken(error: unknown): boolean {
  const failure = exchangeFailure(error);
  if (failure !== undefined) return failure !== "no_token" && failure !== "no_connection";
  return !NOT_TAKEN.has(codeOf(error) ?? "");
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

const errorAnswer = z.object({ error: z.object({ code: z.string(), message: z.string() }) });

function parseAnswer<T>(schema: z.ZodType<T>, status: number, text: string, what: string): T {
  const body = parseJson(text);
  if (status === 200) {
    const parsed = schema.safeParse(body);
    if (parsed.success) return parsed.data;
  }
  const answer = errorAnswer.safeParse(body);
  const code = answer.success
    ? DAEMON_CODES.find((known) => known === answer.data.error.code)
    : undefined;
  if (answer.success && code !== undefined) {
    const message = cut(answer.data.error.message);
    throw new AppError(code, `${what}: ${message}`, { retryable: code === "UNAVAILABLE" });
  }
  throw notUnderstood(`${what}: status ${status} with an answer that is not a daemon's`);
}

/** The codes a daemon answers with: by any other it would speak for somebody else. */
const DAEMON_CODES = [
  "INPUT_INVALID",
  "INPUT_TOO_LARGE",
  "UNAUTHENTICATED",
  "FORBIDDEN",
  "NOT_FOUND",
  "UNAVAILABLE",
  "OUTCOME_UNKNOWN",
  "SANDBOX_STALE_EPOCH",
  "SANDBOX_BOUND",
  "SANDBOX_INPUT_CHANGED",
] as const satisfies readonly ErrorCode[];

function notUnderstood(message: string): AppError {
  const details = { exchange: "not_understood" satisfies ExchangeFailure };
  return new AppError("INTERNAL", message, { details });
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
