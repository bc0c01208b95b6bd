import { z } from "zod";
import type { Clock } from "../runtime/clock.ts";
import { AppError, isAbort } from "../runtime/errors.ts";
import { createHttpServer, type HttpServer } from "../runtime/http.ts";
import type { Logger } from "../runtime/logger.ts";
import type { Registry } from "../runtime/metrics.ts";
import type { Secret } from "../runtime/secret.ts";
import { type Answer, answerRequest, type Mismatch } from "./answer.ts";
import {
  apiError,
  failBefore,
  failWithin,
  isDue,
  type RawReply,
  type StreamFault,
  serverSentEvent,
} from "./failures.ts";
import { FaultPlan } from "./faults.ts";
import { createScriptedModelMetrics, type RequestOutcome } from "./metrics.ts";
import {
  brokenRule,
  countTokensRequest,
  type MessagesRequest,
  messagesRequest,
} from "./request.ts";
import { RequestLog, type RequestRecord } from "./request-log.ts";
import { type Fault, fault as faultSchema, type Script } from "./script.ts";
import { streamSteps, wholeMessage } from "./stream.ts";
import { requestTokens } from "./usage.ts";

/**
 * A server that speaks the Messages API and follows a script.
 *
 *   POST /v1/messages                 with and without `stream`
 *   POST /v1/messages/count_tokens
 *   GET  /requests                    what came in; DELETE forgets it
 *   POST /faults {scenario, faults}   plans faults, `call: 1` being the next request; DELETE clears
 *   GET  /healthz · GET /metrics
 *
 * The model id `scripted:<scenario>` chooses the scenario. A request that does not match the script
 * is answered 400 with SCRIPT_MISMATCH, and logged.
 */
export interface ScriptedModelDeps {
  script: Script;
  clock: Clock;
  logger: Logger;
  registry: Registry;
  /** When given, requests must present it. */
  apiKey?: Secret;
}

/** The real API refuses larger bodies too. */
const BODY_LIMIT_BYTES = 32 * 1024 * 1024;
const MODEL_PREFIX = "scripted:";

const faultsRequest = z.strictObject({ scenario: z.string(), faults: z.array(faultSchema) });

interface Reply extends RawReply {
  code(status: number): Reply;
  header(name: string, value: string): Reply;
  send(body: unknown): Reply;
}

interface Incoming {
  body: unknown;
  headers: Record<string, string | string[] | undefined>;
}

/** Not listening yet: call `listen` on what is returned. */
export function createScriptedModel(deps: ScriptedModelDeps): HttpServer {
  const server = createHttpServer({ bodyLimitBytes: BODY_LIMIT_BYTES });
  const model = new ScriptedModel(deps);
  server.post("/v1/messages", (request, reply) => model.messages(request, reply));
  server.post("/v1/messages/count_tokens", (request, reply) => model.countTokens(request, reply));
  server.get("/requests", () => ({ requests: model.log.list() }));
  server.delete("/requests", () => {
    model.log.clear();
    return {};
  });
  server.post("/faults", (request) => {
    const parsed = faultsRequest.safeParse(request.body);
    if (!parsed.success) throw new AppError("INPUT_INVALID", z.prettifyError(parsed.error));
    model.faults.plan(parsed.data.scenario, parsed.data.faults);
    return {};
  });
  server.delete("/faults", () => {
    model.faults.clear();
    return {};
  });
  server.get("/healthz", () => ({ status: "ok" }));
  server.get("/metrics", async (_request, reply) =>
    reply.type(deps.registry.contentType).send(await deps.registry.metrics()),
  );
  return server;
}

class ScriptedModel {
  readonly log = new RequestLog();
  readonly faults: FaultPlan;
  readonly #deps: ScriptedModelDeps;
  readonly #metrics: ReturnType<typeof createScriptedModelMetrics>;

  constructor(deps: ScriptedModelDeps) {
    this.#deps = deps;
    this.#metrics = createScriptedModelMetrics(deps.registry);
    this.faults = new FaultPlan(deps.script);
  }

  async messages(incoming: Incoming, reply: Reply): Promise<unknown> {
    const refused = this.#refuseHeaders(incoming);
    if (refused !== undefined) return refused(reply);
    const parsed = messagesRequest.safeParse(incoming.body);
    if (!parsed.success) return this.#invalid(reply, firstIssue(parsed.error));
    const request = parsed.data;
    const name = request.model.slice(MODEL_PREFIX.length);
    const scenario = request.model.startsWith(MODEL_PREFIX)
      ? this.#deps.script.get(name)
      : undefined;
    if (scenario === undefined) {
      return sendError(reply, 404, "not_found_error", `model: ${request.model}`);
    }
    const { call, fault } = this.faults.next(name);
    const record = this.log.add(request, {
      at: this.#deps.clock.now(),
      call,
      headers: incoming.headers,
    });
    const rule = brokenRule(request) ?? tooLong(request, scenario.contextWindowTokens);
    if (rule !== undefined) return this.#invalid(reply, rule, record);
    const answer = answerRequest(name, scenario, request);
    record.turn = answer.turn;
    if (fault !== undefined && !("afterDeltas" in fault)) {
      return await this.#fail(reply, fault, record);
    }
    if (answer.kind === "mismatch") return this.#mismatch(reply, answer, record);
    if (request.stream === true) return await this.#stream(reply, answer, record, fault);
    await this.#deps.clock.sleep(answer.delayMs);
    this.#count("answered", record);
    return reply.send(wholeMessage(answer, request.model));
  }

  countTokens(incoming: Incoming, reply: Reply): unknown {
    const refused = this.#refuseHeaders(incoming);
    if (refused !== undefined) return refused(reply);
    const parsed = countTokensRequest.safeParse(incoming.body);
    if (!parsed.success) return this.#invalid(reply, firstIssue(parsed.error));
    return reply.send({ input_tokens: requestTokens(parsed.data) });
  }

  async #stream(
    reply: Reply,
    answer: Answer,
    record: RequestRecord,
    fault: StreamFault | undefined,
  ): Promise<unknown> {
    reply.hijack();
    const gone = new AbortController();
    reply.raw.on("close", () => gone.abort());
    reply.raw.writeHead(200, {
      "content-type": "text/event-stream; charset=utf-8",
      "cache-control": "no-cache",
      "request-id": `req_${record.n}`,
    });
    try {
      const outcome = await this.#writeSteps(reply, answer, record.model, fault, gone.signal);
      this.#count(outcome, record);
    } catch (error) {
      if (!isAbort(error)) throw error;
      this.#count("aborted", record);
    }
    return reply;
  }

  async #writeSteps(
    reply: Reply,
    answer: Answer,
    model: string,
    fault: StreamFault | undefined,
    gone: AbortSignal,
  ): Promise<RequestOutcome> {
    let deltas = 0;
    for (const step of streamSteps(answer, model)) {
      if (fault !== undefined && isDue(fault, step, deltas)) {
        await failWithin(fault, reply, gone);
        return "fault";
      }
      if (!("data" in step)) {
        await this.#deps.clock.sleep(step.ms, gone);
        continue;
      }
      if (gone.aborted) return "aborted";
      if (step.delta === true) deltas += 1;
      reply.raw.write(serverSentEvent(step.event, step.data));
    }
    reply.raw.end();
    return "answered";
  }

  async #fail(
    reply: Reply,
    fault: Exclude<Fault, StreamFault>,
    record: RequestRecord,
  ): Promise<unknown> {
    this.#count("fault", record);
    if (fault.kind !== "status") {
      await failBefore(fault.kind, reply);
      return reply;
    }
    if (fault.retryAfterSeconds !== undefined) {
      reply.header("retry-after", String(fault.retryAfterSeconds));
    }
    return sendError(reply, fault.status, ...apiError(fault.status));
  }

  #refuseHeaders(incoming: Incoming): ((reply: Reply) => unknown) | undefined {
    const key = this.#deps.apiKey?.reveal();
    const bearer = String(incoming.headers["authorization"] ?? "").replace(/^Bearer /, "");
    if (key !== undefined && incoming.headers["x-api-key"] !== key && bearer !== key) {
      return (reply) => sendError(reply, 401, "authentication_error", "invalid x-api-key");
    }
    if (incoming.headers["anthropic-version"] === undefined) {
      return (reply) => this.#invalid(reply, "anthropic-version: header is required");
    }
    return undefined;
  }

  #invalid(reply: Reply, message: string, record?: RequestRecord): unknown {
    this.#deps.logger.warn({ reason: message }, "request refused");
    this.#count("invalid", record);
    return sendError(reply, 400, "invalid_request_error", message);
  }

  #mismatch(reply: Reply, mismatch: Mismatch, record: RequestRecord): unknown {
    const { kind: _kind, ...facts } = mismatch;
    this.#deps.logger.error(facts, "request does not match the script");
    this.#count("mismatch", record);
    const message = `SCRIPT_MISMATCH: scenario "${facts.scenario}", turn ${facts.turn}: expected ${facts.expected}; got: ${facts.got}`;
    return sendError(reply, 400, "invalid_request_error", message, facts);
  }

  #count(outcome: RequestOutcome, record?: RequestRecord): void {
    this.#metrics.requests.inc({ outcome });
    if (record !== undefined) record.outcome = outcome;
  }
}

function sendError(
  reply: Reply,
  status: number,
  type: string,
  message: string,
  details?: Record<string, unknown>,
): unknown {
  const error = { type, message, ...(details === undefined ? {} : { details }) };
  return reply.code(status).send({ type: "error", error });
}

function firstIssue(error: z.ZodError): string {
  const issue = error.issues[0];
  return `${issue?.path.map(String).join(".") ?? ""}: ${issue?.message ?? "invalid"}`;
}

function tooLong(request: MessagesRequest, window: number | undefined): string | undefined {
  const tokens = requestTokens(request) + request.max_tokens;
  if (window === undefined || tokens <= window) return undefined;
  return `prompt is too long: ${tokens} tokens > ${window} maximum`;
}
