import { type Dispatcher, request } from "undici";
import type { SessionClaims } from "../../../protocol/tokens.ts";
import { AppError } from "../../../runtime/errors.ts";
import type { Logger } from "../../../runtime/logger.ts";
import type { Exchange } from "../../exchange.ts";
import { parseJsonText } from "../../json-text.ts";
import { MAX_JSON_DEPTH, SIZES, TIMEOUTS } from "../../limits.ts";
import { type Outcome, outcomeOf } from "../../metrics.ts";
import { Redactor } from "../../redaction.ts";
import type { ServerCredential, SessionCredentials } from "../../session-credentials.ts";
import type { SessionSnapshots } from "../../session-snapshots.ts";
import type { SessionTokenCheck } from "../../token.ts";
import { checkAnswer, discardBody, oneHeader, upstreamError } from "../../upstream-errors.ts";
import { parseServerUrl } from "../../url-match.ts";
import { AnswerRelay } from "./answer-relay.ts";
import { relayEvents } from "./event-relay.ts";
import {
  type Message,
  RPC_HEADER_MISMATCH,
  RPC_METHOD_NOT_FOUND,
  readMessage,
  rpcError,
  rpcRefusal,
} from "./messages.ts";
import { checkCall, isPassedMethod, withoutRefusedCapabilities } from "./policy.ts";
import { buildMcpHeaders, headerMismatch } from "./request-headers.ts";
import type { IdOwner, SealedIds } from "./sealed-ids.ts";

export interface McpRoleDeps {
  tokens: Pick<SessionTokenCheck, "confirm">;
  snapshots: Pick<SessionSnapshots, "get">;
  credentials: Pick<SessionCredentials, "forServer">;
  agent: Dispatcher;
  sealedIds: SealedIds;
  logger: Logger;
  onRedaction: () => void;
}

/** One MCP server as one session may use it, ready to be asked. */
interface Target {
  url: URL;
  name: string;
  what: string;
  tools: AgentTools;
  credential: ServerCredential;
  redactor: Redactor;
  owner: Omit<IdOwner, "what">;
}

type AgentTools = Awaited<ReturnType<SessionSnapshots["get"]>>["agent"]["tools"];
type Answer = Dispatcher.ResponseData;

/**
 * `/mcp/{server}` (security §7): ends the harness's request and makes one of its own. The URL comes
 * from the session's pinned agent, the credential from its vaults, the body is what we understood of
 * the harness's, and nothing of the answer is passed on unread.
 */
export class McpRole {
  readonly #deps: McpRoleDeps;
  /** One listening stream per session and server; a new one replaces the old. */
  readonly #listening = new Map<string, AbortController>();

  constructor(deps: McpRoleDeps) {
    this.#deps = deps;
  }

  async serve(exchange: Exchange, claims: SessionClaims, server: string): Promise<Outcome> {
    switch (exchange.method) {
      case "POST":
        return await this.#post(exchange, claims, server);
      case "GET":
        return await this.#listen(exchange, claims, server);
      case "DELETE":
        return await this.#endSession(exchange, claims, server);
      default:
        throw new AppError("NOT_FOUND", "an MCP server takes POST, GET and DELETE");
    }
  }

  async #post(exchange: Exchange, claims: SessionClaims, server: string): Promise<Outcome> {
    if (!/^application\/json\b/i.test(exchange.header("content-type") ?? "")) {
      throw new AppError("INPUT_INVALID", "content-type must be application/json");
    }
    const body = parseJsonText(await exchange.text(SIZES.mcpRequest), MAX_JSON_DEPTH);
    const message = readMessage(body);
    const isCall = message.kind === "request" && message.method === "tools/call";
    await this.#deps.tokens.confirm(claims, isCall);
    try {
      return await this.#pass(exchange, claims, server, body, message);
    } catch (error) {
      const answers = message.kind === "request" && !exchange.answered;
      if (!answers || !(error instanceof AppError)) throw error;
      // A refusal reaches the model as a tool error it can act on, so it is an answer, not a status.
      exchange.sendJson(200, rpcRefusal(message.id, error));
      this.#log(claims, server, error);
      return outcomeOf(error);
    }
  }

  async #pass(
    exchange: Exchange,
    claims: SessionClaims,
    server: string,
    body: unknown,
    message: Message,
  ): Promise<Outcome> {
    const refused = refusedMessage(exchange, message);
    if (refused !== undefined) {
      exchange.sendJson(refused.status, refused.body);
      return "refused";
    }
    const target = await this.#target(claims, server, message);
    const answer = await this.#ask(exchange, target, message, withoutRefusedCapabilities(body));
    try {
      await this.#answerPost(exchange, target, message, answer);
    } finally {
      discardBody(answer);
    }
    return answer.statusCode < 400 ? "ok" : "upstream_error";
  }

  async #answerPost(
    exchange: Exchange,
    target: Target,
    message: Message,
    answer: Answer,
  ): Promise<void> {
    const { what, redactor } = target;
    if (isFailure(answer.statusCode)) throw failure(target, answer);
    const relay = this.#relay(exchange, target, message);
    const headers = this.#answerHeaders(target, answer);
    const type = oneHeader(answer.headers, "content-type")?.split(";")[0]?.trim().toLowerCase();
    if (answer.statusCode >= 400) {
      const text = await readText(what, answer, SIZES.jsonAnswer);
      exchange.sendJson(answer.statusCode, redactor.json(errorBodyOf(text, what, answer)));
    } else if (message.kind !== "request") {
      exchange.sendText(202, "", "text/plain", headers);
    } else if (type === "application/json") {
      const text = relay.json(await readText(what, answer, SIZES.jsonAnswer));
      exchange.sendText(answer.statusCode, text, "application/json", headers);
    } else if (type === "text/event-stream") {
      exchange.start(answer.statusCode, { ...headers, ...STREAM_HEADERS });
      await this.#relayStream(exchange, target, answer, relay);
    } else {
      throw new AppError("UPSTREAM_REFUSED", `${what} answered with neither JSON nor events`);
    }
  }

  async #listen(exchange: Exchange, claims: SessionClaims, server: string): Promise<Outcome> {
    await this.#deps.tokens.confirm(claims, false);
    const target = await this.#target(claims, server, undefined);
    const key = JSON.stringify(target.owner);
    this.#listening.get(key)?.abort();
    const own = new AbortController();
    this.#listening.set(key, own);
    try {
      const answer = await this.#ask(exchange, target, undefined, undefined, own.signal);
      if (answer.statusCode === 200) {
        exchange.start(200, { ...this.#answerHeaders(target, answer), ...STREAM_HEADERS });
        const relay = this.#relay(exchange, target, undefined);
        await this.#relayStream(exchange, target, answer, relay);
        return "ok";
      }
      discardBody(answer);
      if (isFailure(answer.statusCode)) throw failure(target, answer);
      // 405: the server has no such stream, which is ordinary; 404: its session is over.
      exchange.sendText(answer.statusCode, "", "text/plain");
      return "ok";
    } finally {
      if (this.#listening.get(key) === own) this.#listening.delete(key);
    }
  }

  async #endSession(exchange: Exchange, claims: SessionClaims, server: string): Promise<Outcome> {
    await this.#deps.tokens.confirm(claims, false);
    const target = await this.#target(claims, server, undefined);
    const answer = await this.#ask(exchange, target, undefined, undefined);
    discardBody(answer);
    if (isFailure(answer.statusCode)) throw failure(target, answer);
    exchange.sendText(answer.statusCode, "", "text/plain");
    return "ok";
  }

  async #target(
    claims: SessionClaims,
    server: string,
    message: Message | undefined,
  ): Promise<Target> {
    const snapshot = await this.#deps.snapshots.get(claims.ten, claims.sub);
    const configured = snapshot.agent.mcpServers?.find(({ name }) => name === server);
    if (configured === undefined) {
      throw new AppError("NOT_FOUND", `the session's agent has no MCP server "${server}"`);
    }
    const { tools } = snapshot.agent;
    if (message?.kind === "request" && message.method === "tools/call") {
      checkCall(tools, server, toolName(message));
    }
    const credential = await this.#deps.credentials.forServer(snapshot, {
      name: server,
      url: parseServerUrl(configured.url),
    });
    return {
      url: new URL(configured.url),
      name: server,
      what: `MCP server "${server}"`,
      tools,
      credential,
      redactor: new Redactor(credential.known, this.#deps.onRedaction),
      owner: { tenant: claims.ten, sessionId: claims.sub, server },
    };
  }

  async #ask(
    exchange: Exchange,
    target: Target,
    message: Message | undefined,
    body: unknown,
    alsoUntil?: AbortSignal,
  ): Promise<Answer> {
    const isCall = message?.kind === "request" && message.method === "tools/call";
    const isListening = exchange.method === "GET";
    const headers = this.#requestHeaders(exchange, target, message);
    try {
      const answer = await request(target.url, {
        method:
          exchange.method === "GET" || exchange.method === "DELETE" ? exchange.method : "POST",
        dispatcher: this.#deps.agent,
        headers,
        body: body === undefined ? null : JSON.stringify(body),
        signal: alsoUntil ? AbortSignal.any([exchange.signal, alsoUntil]) : exchange.signal,
        headersTimeout: isCall ? TIMEOUTS.callHeadersMs : TIMEOUTS.headersMs,
        // Silence is the ordinary state of a listening stream; it lives as long as its reader.
        bodyTimeout: isListening ? 0 : TIMEOUTS.bodyIdleMs,
      });
      checkAnswer(target.what, answer);
      return answer;
    } catch (error) {
      throw upstreamError(target.what, error);
    }
  }

  #requestHeaders(exchange: Exchange, target: Target, message: Message | undefined) {
    const { sealedIds } = this.#deps;
    const open = (what: IdOwner["what"], sealed: string | undefined) =>
      sealed === undefined ? undefined : sealedIds.open({ ...target.owner, what }, sealed);
    return buildMcpHeaders({
      exchange,
      message,
      credential: target.credential,
      sessionId: open("session", exchange.header("mcp-session-id")),
      lastEventId: open("event", exchange.header("last-event-id")),
    });
  }

  #answerHeaders(target: Target, answer: Answer): Record<string, string> {
    const sessionId = oneHeader(answer.headers, "mcp-session-id");
    if (sessionId === undefined) return {};
    return {
      "mcp-session-id": this.#deps.sealedIds.seal({ ...target.owner, what: "session" }, sessionId),
    };
  }

  #relay(exchange: Exchange, target: Target, message: Message | undefined): AnswerRelay {
    return new AnswerRelay({
      what: target.what,
      server: target.name,
      tools: target.tools,
      redactor: target.redactor,
      request: message?.kind === "request" ? message : undefined,
      refuse: (answer) => this.#tellServer(exchange, target, answer),
    });
  }

  async #relayStream(
    exchange: Exchange,
    target: Target,
    answer: Answer,
    relay: AnswerRelay,
  ): Promise<void> {
    const owner: IdOwner = { ...target.owner, what: "event" };
    try {
      await relayEvents(answer.body, exchange, {
        relay: (data) => relay.event(data),
        sealId: (id) => this.#deps.sealedIds.seal(owner, id),
      });
    } catch (error) {
      throw upstreamError(target.what, error);
    } finally {
      discardBody(answer);
    }
    exchange.end();
  }

  /** Answers a server's own request (sampling, roots …) with a refusal; nobody waits for it. */
  #tellServer(exchange: Exchange, target: Target, answer: unknown): void {
    const headers = {
      ...this.#requestHeaders(exchange, target, undefined),
      accept: "application/json, text/event-stream",
      "content-type": "application/json",
    };
    request(target.url, {
      method: "POST",
      dispatcher: this.#deps.agent,
      headers,
      body: JSON.stringify(answer),
      signal: exchange.signal,
    }).then(
      async ({ body }) => await body.dump(),
      () => this.#deps.logger.debug({ server: target.name }, "refusal did not reach MCP server"),
    );
  }

  #log(claims: SessionClaims, server: string, error: AppError): void {
    const fields = { sessionId: claims.sub, server, code: error.code, reason: error.message };
    this.#deps.logger.warn(fields, "mcp request refused");
  }
}

const STREAM_HEADERS = {
  "content-type": "text/event-stream",
  "cache-control": "no-store",
  "x-accel-buffering": "no",
};

/** Messages that are answered here and go nowhere. Throws FORBIDDEN for a notification. */
function refusedMessage(
  exchange: Exchange,
  message: Message,
): { status: number; body: unknown } | undefined {
  const id = message.kind === "request" ? message.id : null;
  const mismatch = headerMismatch(exchange, message);
  if (mismatch !== undefined) {
    const text = `header ${mismatch} says something else than the body`;
    return { status: 400, body: rpcError(id, RPC_HEADER_MISMATCH, text) };
  }
  if (isPassedMethod(message) || message.kind === "response") return undefined;
  const text = `${JSON.stringify(message.method)} is not passed on by the proxy; only tools are`;
  if (message.kind === "notification") throw new AppError("FORBIDDEN", text);
  return { status: 200, body: rpcError(id, RPC_METHOD_NOT_FOUND, text) };
}

function toolName(message: Extract<Message, { kind: "request" }>): string {
  const name = message.params?.["name"];
  if (typeof name === "string" && name !== "" && name.length <= 256) return name;
  throw new AppError("INPUT_INVALID", "tools/call needs params.name");
}

/** Statuses that say nothing to an MCP client; the others (400, 404, 405) are part of the protocol. */
function isFailure(status: number): boolean {
  return status === 401 || status === 403 || status === 429 || status >= 500;
}

function failure({ what, credential }: Target, { statusCode }: Answer): AppError {
  if (statusCode === 401 || statusCode === 403) {
    return new AppError(
      "UPSTREAM_REFUSED",
      `${what} did not accept credential "${credential.id}" (status ${statusCode})`,
      { details: { status: statusCode, version: credential.version } },
    );
  }
  return new AppError("UPSTREAM_REFUSED", `${what} answered with status ${statusCode}`, {
    retryable: true,
    details: { status: statusCode },
  });
}

async function readText(what: string, answer: Answer, limit: number): Promise<string> {
  const chunks: Buffer[] = [];
  let size = 0;
  try {
    for await (const chunk of answer.body) {
      const bytes = Buffer.from(chunk);
      size += bytes.length;
      if (size > limit) {
        throw new AppError("UPSTREAM_REFUSED", `${what} answered with more than ${limit} bytes`, {
          details: { limit },
        });
      }
      chunks.push(bytes);
    }
  } catch (error) {
    throw upstreamError(what, error);
  }
  return Buffer.concat(chunks).toString("utf8");
}

/** The server's own error object, by which clients tell the protocol's era; else one of ours. */
function errorBodyOf(text: string, what: string, { statusCode }: Answer): unknown {
  try {
    return parseJsonText(text, MAX_JSON_DEPTH);
  } catch {
    return rpcError(null, -32_000, `${what} answered with status ${statusCode}`);
  }
}
