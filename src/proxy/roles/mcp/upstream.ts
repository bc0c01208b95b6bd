import { type Dispatcher, request } from "undici";
import type { Clock } from "../../../runtime/clock.ts";
import { AppError, codeOf } from "../../../runtime/errors.ts";
import type { Logger } from "../../../runtime/logger.ts";
import type { AuditLog } from "../../audit.ts";
import type { Exchange } from "../../exchange.ts";
import { SIZES, TIMEOUTS } from "../../limits.ts";
import { type Outcome, outcomeOf } from "../../metrics.ts";
import { isConnectAgain, type StreamWatch } from "../../stream-watch.ts";
import type { Caller, SessionTokenCheck } from "../../token.ts";
import {
  checkAnswer,
  checkCharset,
  discardBody,
  oneHeader,
  unusableAnswer,
  upstreamError,
} from "../../upstream-errors.ts";
import { AnswerRelay } from "./answer-relay.ts";
import { errorBodyOf, failure, isFailure, readText } from "./answers.ts";
import { messageFrame, relayEvents } from "./event-relay.ts";
import { isRpcAnswer, type Message, rpcRefusal } from "./messages.ts";
import { filterTools, isRecord, withoutRefusedCapabilities } from "./policy.ts";
import { readBody, refusedMessage } from "./request-body.ts";
import { buildMcpHeaders } from "./request-headers.ts";
import type { IdOwner, SealedIds } from "./sealed-ids.ts";
import { ServerRefusals } from "./server-refusals.ts";
import { findTarget, type Target, type TargetDeps } from "./target.ts";

export interface McpRoleDeps extends TargetDeps {
  tokens: Pick<SessionTokenCheck, "confirm">;
  watch: StreamWatch;
  agent: Dispatcher;
  sealedIds: SealedIds;
  audit: Pick<AuditLog, "check" | "record">;
  /** Called for every tool that was left out of a list because it is not as it was pinned. */
  onDrift: (tools: number) => void;
  /** Called for every request of a server that is refused. */
  onServerRequest: () => void;
  /** So long a call of a tool may take. */
  callMs: number;
  clock: Clock;
  logger: Logger;
}

type Answer = Dispatcher.ResponseData;

/** What a server says to one request, on its way to the harness. */
interface Stream {
  exchange: Exchange;
  target: Target;
  relay: AnswerRelay;
  refusals: ServerRefusals;
  /** Aborts when either side is gone or the use is not to go on. */
  until: AbortSignal;
}

/**
 * `/mcp/{server}` (docs/design/security.md#mcp): ends the harness's request and makes one of its
 * own. The URL comes from the session's pinned agent, the credential from its vaults, the body is
 * what we understood of the harness's, and nothing of the answer is passed on unread.
 */
export class McpRole {
  readonly #deps: McpRoleDeps;
  /** One listening stream per session and server; a new one replaces the old. */
  readonly #listening = new Map<string, AbortController>();
  constructor(deps: McpRoleDeps) {
    this.#deps = deps;
  }

  async serve(exchange: Exchange, caller: Caller, server: string): Promise<Outcome> {
    exchange.use.serverRef = server;
    switch (exchange.method) {
      case "POST":
        return await this.#post(exchange, caller, server);
      case "GET":
        return await this.#listen(exchange, caller, server);
      case "DELETE":
        return await this.#endSession(exchange, caller, server);
      default:
        throw new AppError("NOT_FOUND", "an MCP server takes POST, GET and DELETE");
    }
  }

  /** Gives a refusal from before the body was read as the answer that its reader waits for. */
  async refuse(
    exchange: Exchange,
    caller: Caller,
    server: string,
    problem: unknown,
  ): Promise<Outcome> {
    exchange.use.serverRef = server;
    if (exchange.method !== "POST" || !(problem instanceof AppError)) throw problem;
    const { message } = await readBody(exchange);
    return this.#answerRefusal(exchange, caller, server, message, problem);
  }

  async #post(exchange: Exchange, caller: Caller, server: string): Promise<Outcome> {
    const { body, message } = await readBody(exchange);
    const isCall = message.kind === "request" && message.method === "tools/call";
    await this.#deps.tokens.confirm(caller.claims, isCall);
    try {
      if (isCall) this.#deps.audit.check({ hasEffect: true });
      return await this.#pass(exchange, caller, server, body, message);
    } catch (error) {
      return this.#answerRefusal(exchange, caller, server, message, error);
    }
  }

  /** Throws the error again where an HTTP status says it better. */
  #answerRefusal(
    exchange: Exchange,
    caller: Caller,
    server: string,
    message: Message,
    error: unknown,
  ): Outcome {
    if (message.kind !== "request" || exchange.answered) throw error;
    if (!(error instanceof AppError) || !isRpcAnswer(message, error)) throw error;
    exchange.use.error = error.code;
    exchange.sendJson(200, rpcRefusal(message.id, error));
    this.#log(caller, server, error);
    return outcomeOf(error);
  }

  async #pass(
    exchange: Exchange,
    caller: Caller,
    server: string,
    body: unknown,
    message: Message,
  ): Promise<Outcome> {
    const refused = refusedMessage(exchange, message);
    if (refused !== undefined) {
      exchange.use.error = "METHOD_REFUSED";
      exchange.sendJson(refused.status, refused.body);
      return "refused";
    }
    const target = await findTarget(this.#deps, exchange, caller, server, message);
    const sent = withoutRefusedCapabilities(body);
    return await this.#deps.watch.during({ caller, target, kind: "call" }, async (ended) => {
      const until = AbortSignal.any([exchange.signal, ended]);
      const answer = await this.#ask(exchange, target, message, sent, until);
      const stream = this.#stream(exchange, target, message, until);
      try {
        await stream.refusals.during(() => this.#answerPost(stream, message, answer));
      } finally {
        discardBody(answer);
      }
      return answer.statusCode < 400 && !stream.relay.failed ? "ok" : "upstream_error";
    });
  }

  async #answerPost(stream: Stream, message: Message, answer: Answer): Promise<void> {
    const { exchange, target, relay } = stream;
    const { memory } = exchange;
    const { what, redactor } = target;
    if (isFailure(answer.statusCode)) throw failure(target, answer);
    checkCharset(what, answer);
    const headers = this.#answerHeaders(target, answer);
    const type = oneHeader(answer.headers, "content-type")?.split(";")[0]?.trim().toLowerCase();
    if (answer.statusCode >= 400) {
      const text = await readText(what, answer, { limit: SIZES.jsonAnswer, memory });
      exchange.sendJson(answer.statusCode, redactor.json(errorBodyOf(text, what, answer)));
    } else if (message.kind !== "request") {
      exchange.sendText(202, "", "text/plain", headers);
    } else if (type === "application/json") {
      const isList = message.method === "tools/list";
      const limit = isList ? SIZES.toolsAnswer : SIZES.jsonAnswer;
      const text = await relay.json(await readText(what, answer, { limit, memory }));
      exchange.sendText(answer.statusCode, text, "application/json", headers);
    } else if (type === "text/event-stream") {
      exchange.start(answer.statusCode, { ...headers, ...STREAM_HEADERS });
      await this.#relayStream(stream, answer);
    } else {
      throw unusableAnswer(`${what} answered with neither JSON nor events`);
    }
  }

  async #listen(exchange: Exchange, caller: Caller, server: string): Promise<Outcome> {
    await this.#deps.tokens.confirm(caller.claims, false);
    const target = await findTarget(this.#deps, exchange, caller, server, undefined);
    const key = JSON.stringify(target.owner);
    this.#listening.get(key)?.abort();
    const own = new AbortController();
    this.#listening.set(key, own);
    try {
      return await this.#deps.watch.during({ caller, target, kind: "listening" }, async (ended) => {
        const until = AbortSignal.any([exchange.signal, own.signal, ended]);
        return await this.#relayListened(exchange, target, until);
      });
    } catch (error) {
      if (!exchange.answered || !isConnectAgain(error)) throw error;
      exchange.end();
      return "ok";
    } finally {
      if (this.#listening.get(key) === own) this.#listening.delete(key);
    }
  }

  async #relayListened(exchange: Exchange, target: Target, until: AbortSignal): Promise<Outcome> {
    const answer = await this.#ask(exchange, target, undefined, undefined, until);
    if (answer.statusCode === 200) {
      checkCharset(target.what, answer);
      exchange.start(200, { ...this.#answerHeaders(target, answer), ...STREAM_HEADERS });
      const stream = this.#stream(exchange, target, undefined, until);
      await stream.refusals.during(() => this.#relayStream(stream, answer));
      return "ok";
    }
    discardBody(answer);
    if (isFailure(answer.statusCode)) throw failure(target, answer);
    // 405: the server has no such stream, which is ordinary; 404: its session is over.
    exchange.sendText(answer.statusCode, "", "text/plain");
    return "ok";
  }

  async #endSession(exchange: Exchange, caller: Caller, server: string): Promise<Outcome> {
    await this.#deps.tokens.confirm(caller.claims, false);
    const target = await findTarget(this.#deps, exchange, caller, server, undefined);
    const answer = await this.#ask(exchange, target, undefined, undefined, exchange.signal);
    discardBody(answer);
    if (isFailure(answer.statusCode)) throw failure(target, answer);
    exchange.sendText(answer.statusCode, "", "text/plain");
    return "ok";
  }

  async #ask(
    exchange: Exchange,
    target: Target,
    message: Message | undefined,
    body: unknown,
    until: AbortSignal,
  ): Promise<Answer> {
    const isCall = message?.kind === "request" && message.method === "tools/call";
    const isListening = exchange.method === "GET";
    const callMs = this.#deps.callMs + TIMEOUTS.callMarginMs;
    const headers = this.#requestHeaders(exchange, target, message);
    exchange.use.allowedBy = isCall ? "always_allow" : "method";
    try {
      const answer = await request(target.url, {
        method:
          exchange.method === "GET" || exchange.method === "DELETE" ? exchange.method : "POST",
        dispatcher: this.#deps.agent,
        headers,
        body: body === undefined ? null : JSON.stringify(body),
        signal: until,
        // A server may answer a call only when its tool is done, with JSON or after a silent start of a stream.
        headersTimeout: isCall ? callMs : TIMEOUTS.headersMs,
        // Silence is the ordinary state of a listening stream; it lives as long as its reader.
        bodyTimeout: isListening ? 0 : isCall ? callMs : TIMEOUTS.bodyIdleMs,
      });
      exchange.use.upstreamStatus = answer.statusCode;
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

  #stream(
    exchange: Exchange,
    target: Target,
    message: Message | undefined,
    until: AbortSignal,
  ): Stream {
    const asked = message?.kind === "request" ? message : undefined;
    const { audit, onServerRequest, clock, logger } = this.#deps;
    const refusals = new ServerRefusals({
      what: target.what,
      send: async (text, signal) => await this.#tellServer(exchange, target, text, signal),
      use: exchange.use,
      until,
      audit,
      onRefusal: onServerRequest,
      clock,
      logger,
    });
    const relay = new AnswerRelay({
      what: target.what,
      visibleTools: async (listed) => await this.#visibleTools(target, asked, listed),
      redactor: target.redactor,
      request: asked,
      refuse: (theirs) => refusals.refuse(theirs),
    });
    return { exchange, target, relay, refusals, until };
  }

  /** Without the tools that the agent may not use, and those that are not as they were pinned. */
  async #visibleTools(
    target: Target,
    asked: Extract<Message, { kind: "request" }> | undefined,
    listed: unknown,
  ): Promise<unknown> {
    const result = filterTools(listed, target.tools, target.name);
    if (!isRecord(result) || !Array.isArray(result["tools"])) return result;
    const { nextCursor } = result;
    const { tools, hidden } = await this.#deps.pins.filter(target.pinned, target.owner.sessionId, {
      tools: result["tools"],
      cursor: asked?.params?.["cursor"],
      nextCursor: typeof nextCursor === "string" ? nextCursor : undefined,
    });
    if (hidden > 0) {
      const fields = { sessionId: target.owner.sessionId, server: target.name, hidden };
      this.#deps.logger.warn(
        fields,
        "tools hidden: new, changed since the revision's first use, or past a limit",
      );
      this.#deps.onDrift(hidden);
    }
    return { ...result, tools };
  }

  /** Passes the stream on to its end, and says so to the harness when the answer never came. */
  async #relayStream({ exchange, target, relay, until }: Stream, answer: Answer): Promise<void> {
    const owner: IdOwner = { ...target.owner, what: "event" };
    let problem: Error | undefined;
    try {
      const sealId = (id: string) => {
        relay.markResumable();
        return this.#deps.sealedIds.seal(owner, id);
      };
      const hooks = { relay: async (data: string) => await relay.event(data), sealId };
      await relayEvents(answer.body, exchange, hooks, until);
      problem = relay.missingAnswer();
    } catch (error) {
      problem = upstreamError(target.what, until.aborted ? until.reason : error);
    } finally {
      discardBody(answer);
    }
    if (problem === undefined) {
      exchange.end();
      return;
    }
    const last = problem instanceof AppError ? relay.lastWord(problem) : undefined;
    if (last === undefined) throw problem;
    exchange.use.error = codeOf(problem) ?? "INTERNAL";
    exchange.end(messageFrame(last));
  }

  async #tellServer(
    exchange: Exchange,
    target: Target,
    text: string,
    signal: AbortSignal,
  ): Promise<Answer> {
    const headers = {
      ...this.#requestHeaders(exchange, target, undefined),
      accept: "application/json, text/event-stream",
      "content-type": "application/json",
    };
    const dispatcher = this.#deps.agent;
    return await request(target.url, { method: "POST", dispatcher, headers, body: text, signal });
  }

  #log(caller: Caller, server: string, error: AppError): void {
    const fields = {
      sessionId: caller.claims.sub,
      server,
      code: error.code,
      reason: error.message,
    };
    this.#deps.logger.warn(fields, "mcp request refused");
  }
}

const STREAM_HEADERS = {
  "content-type": "text/event-stream",
  "cache-control": "no-store",
  "x-accel-buffering": "no",
};
