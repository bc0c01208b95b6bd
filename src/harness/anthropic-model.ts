import Anthropic, { APIConnectionError, APIError } from "@anthropic-ai/sdk";
import { Stream } from "@anthropic-ai/sdk/streaming";
import type { Clock } from "../runtime/clock.ts";
import { describeError, isAbort } from "../runtime/errors.ts";
import { MessageAssembly } from "./message-assembly.ts";
import {
  isModelError,
  type Model,
  type ModelAnswer,
  type ModelCall,
  ModelError,
  type ModelErrorKind,
  type ModelRequest,
} from "./model.ts";
import { withCacheBreakpoints } from "./transcript.ts";

export interface AnthropicModelDeps {
  /** What comes before `/v1/messages`: the sidecar's `/model`. */
  baseUrl: string;
  clock: Clock;
  fetch: typeof fetch;
  timeouts?: { firstByteMs: number; stallMs: number };
}

/**
 * A model may think for minutes before it answers, but the API pings meanwhile: silence for longer
 * than `stallMs` in an open stream means that nobody is there.
 */
const TIMEOUTS = { firstByteMs: 180_000, stallMs: 90_000 };
/** The SDK's own timer; ours are nearer. */
const SDK_TIMEOUT_MS = 3_600_000;

export class AnthropicModel implements Model {
  readonly #deps: AnthropicModelDeps;
  readonly #client: Anthropic;

  constructor(deps: AnthropicModelDeps) {
    this.#deps = deps;
    this.#client = new Anthropic({
      baseURL: deps.baseUrl,
      authToken: "given-per-request",
      apiKey: null,
      fetch: deps.fetch,
      // Retries are the harness's: it must log each attempt and keep previews apart.
      maxRetries: 0,
      timeout: SDK_TIMEOUT_MS,
      // The SDK logs what it cannot parse, and that is the user's content.
      logLevel: "off",
    });
  }

  async stream(request: ModelRequest, call: ModelCall): Promise<ModelAnswer> {
    const watchdog = new Watchdog(this.#deps.clock);
    const signal = AbortSignal.any([call.signal, watchdog.signal]);
    try {
      watchdog.restart((this.#deps.timeouts ?? TIMEOUTS).firstByteMs);
      return await this.#read(request, call, signal, watchdog);
    } catch (error) {
      call.signal.throwIfAborted();
      throw watchdog.signal.aborted
        ? new ModelError("timeout", "the model sent nothing for too long")
        : classify(error);
    } finally {
      watchdog.stop();
    }
  }

  async #read(
    request: ModelRequest,
    call: ModelCall,
    signal: AbortSignal,
    watchdog: Watchdog,
  ): Promise<ModelAnswer> {
    const { stallMs } = this.#deps.timeouts ?? TIMEOUTS;
    const response = await this.#client
      .post("/v1/messages", {
        body: bodyOf(request),
        headers: { authorization: `Bearer ${call.sessionToken}` },
        stream: true,
        signal,
      })
      .asResponse();
    const assembly = new MessageAssembly(call.onText);
    const reading = new AbortController();
    for await (const { event, data } of Stream.rawEvents(response, reading)) {
      watchdog.restart(stallMs);
      signal.throwIfAborted();
      if (event === "error") throw streamError(data);
      if (data !== "") assembly.add(parse(data));
    }
    signal.throwIfAborted();
    return assembly.finish();
  }
}

/** Aborts its signal when it is not restarted in time. */
class Watchdog {
  readonly #clock: Clock;
  readonly #controller = new AbortController();
  #cancel = () => {};

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  restart(ms: number): void {
    this.#cancel();
    this.#cancel = this.#clock.timer(ms, () => this.#controller.abort());
  }

  stop(): void {
    this.#cancel();
  }
}

/** Breakpoints: after tools and system prompt (they change least), and in the last user messages. */
function bodyOf(request: ModelRequest): Record<string, unknown> {
  const mark = { cache_control: { type: "ephemeral" } };
  const { system, tools } = request;
  return {
    model: request.model,
    max_tokens: request.maxTokens,
    stream: true,
    ...(system === undefined || system.trim() === ""
      ? {}
      : { system: [{ type: "text", text: system.toWellFormed(), ...mark }] }),
    ...(tools.length === 0
      ? {}
      : {
          tools: tools.map((tool, index) =>
            index === tools.length - 1 ? { ...tool, ...mark } : tool,
          ),
        }),
    messages: withCacheBreakpoints(request.messages),
  };
}

function parse(data: string): unknown {
  try {
    return JSON.parse(data);
  } catch {
    throw new ModelError("malformed", "the model's answer cannot be read: not JSON");
  }
}

/** An error event inside a 200 stream, by its type: the status said nothing. */
function streamError(data: string): ModelError {
  const parsed: unknown = parse(data);
  const error =
    typeof parsed === "object" && parsed !== null && "error" in parsed ? parsed.error : undefined;
  const type =
    typeof error === "object" && error !== null && "type" in error ? error.type : undefined;
  return new ModelError(kindOfType(type) ?? "server_error", describeError(error));
}

function classify(error: unknown): unknown {
  if (isModelError(error)) return error;
  if (error instanceof APIConnectionError || isAbort(error)) {
    return new ModelError("connection", `the model cannot be reached: ${describeError(error)}`);
  }
  if (error instanceof APIError) {
    const message = describeError(error);
    return new ModelError(
      kindOfStatus(error.status, error.type, message),
      sentenceOf(error, message),
      retryAfterMs(error.headers),
    );
  }
  // The body broke off: undici says so in errors of many shapes, and nothing else throws here.
  return new ModelError("connection", `the model's answer broke off: ${describeError(error)}`);
}

/** The SDK's message is the whole answer as JSON; people get what it says. */
function sentenceOf({ status, error: body }: APIError, message: string): string {
  const inner = typeof body === "object" && body !== null && "error" in body ? body.error : body;
  const said =
    typeof inner === "object" && inner !== null && "message" in inner ? inner.message : undefined;
  const what = status === 401 || status === 403 ? "refused the credential" : "answered an error";
  return `the model ${what} (status ${status}): ${typeof said === "string" ? said : message}`;
}

function kindOfStatus(status: unknown, type: unknown, message: string): ModelErrorKind {
  switch (status) {
    case 400:
      return /prompt is too long|context window|too many tokens/i.test(message)
        ? "too_long"
        : "refused";
    case 413:
      return "too_long";
    case 401:
    case 403:
      return "unauthorized";
    case 402:
      return "billing";
    case 408:
    case 504:
      return "timeout";
    case 429:
      return "rate_limited";
    case 529:
      return "overloaded";
    default:
      return (
        kindOfType(type) ??
        (typeof status === "number" && status < 500 ? "refused" : "server_error")
      );
  }
}

function kindOfType(type: unknown): ModelErrorKind | undefined {
  switch (type) {
    case "overloaded_error":
      return "overloaded";
    case "rate_limit_error":
      return "rate_limited";
    case "timeout_error":
      return "timeout";
    case "billing_error":
      return "billing";
    case "authentication_error":
    case "permission_error":
      return "unauthorized";
    default:
      return undefined;
  }
}

/** Seconds only: dates are not used by the API. */
function retryAfterMs(headers: Headers | undefined): number | undefined {
  const seconds = Number(headers?.get("retry-after") ?? Number.NaN);
  return Number.isFinite(seconds) && seconds >= 0 ? seconds * 1000 : undefined;
}
