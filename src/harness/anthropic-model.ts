import Anthropic, { APIConnectionError, APIError } from "@anthropic-ai/sdk";
import { createParser } from "eventsource-parser";
import { parseExact } from "../protocol/exact-json.ts";
import type { Clock } from "../runtime/clock.ts";
import { describeError, isAbort } from "../runtime/errors.ts";
import { MessageAssembly } from "./message-assembly.ts";
import {
  isModelError,
  type Model,
  type ModelAnswer,
  type ModelCall,
  ModelError,
  type ModelRequest,
} from "./model.ts";
import { kindOfErrorEvent, kindOfStatus, retryAfterMs } from "./model-failures.ts";
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
/** Of one answer from its request to its end, whatever comes meanwhile. */
const ANSWER_DEADLINE_MS = 3_600_000;
/** Of one answer, and of one event in it. */
const MAX_ANSWER_BYTES = 64 * 1024 * 1024;
const MAX_EVENT_CHARS = 4 * 1024 * 1024;
/** So long a connection whose answer is complete may still take to end by itself. */
const DRAIN_MS = 1000;

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
      timeout: ANSWER_DEADLINE_MS,
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
        : classify(error, this.#deps.clock.now());
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
    if (response.body === null) throw new ModelError("malformed", "the model's answer is empty");
    const assembly = new MessageAssembly(call.onText);
    const isWhole = response.headers.get("content-type")?.includes("application/json") === true;
    const reading = isWhole ? wholeAnswer(assembly) : eventStream(assembly);
    const decoder = new TextDecoder();
    const reader: BodyReader = response.body.getReader();
    let bytes = 0;
    try {
      while (!assembly.done) {
        const { value, done } = await reader.read();
        signal.throwIfAborted();
        if (done) break;
        watchdog.restart(stallMs);
        bytes += value.length;
        if (bytes > MAX_ANSWER_BYTES) throw malformed("it is too large");
        reading.feed(decoder.decode(value, { stream: true }));
      }
      reading.end();
      return assembly.finish();
    } finally {
      this.#letEnd(reader);
    }
  }

  /** What still comes is dropped; a connection that ends by itself meanwhile can be used again. */
  #letEnd(reader: BodyReader): void {
    const isOver = async () => {
      while (!(await reader.read()).done);
    };
    const drop = () => {
      reader.cancel().catch(() => {});
    };
    const stopWaiting = this.#deps.clock.timer(DRAIN_MS, drop);
    isOver().catch(drop).finally(stopWaiting);
  }
}

type BodyReader = ReadableStreamDefaultReader<Uint8Array>;

/** Says by throwing that the answer is of no use. */
interface Reading {
  feed(text: string): void;
  end(): void;
}

/** Gives each event of the stream to `assembly`. */
function eventStream(assembly: MessageAssembly): Reading {
  const parser = createParser({
    maxBufferSize: MAX_EVENT_CHARS,
    onEvent: ({ data }) => {
      if (assembly.done || data === "") return;
      const value = parse(data);
      // The type in the data decides: some gateways give every event the same name, or none.
      if (isRecord(value) && value["type"] === "error") throw streamError(value["error"]);
      assembly.add(value);
    },
    onError: (error) => {
      if (error.type === "max-buffer-size-exceeded") throw malformed("an event is too large");
    },
  });
  return { feed: (text) => parser.feed(text), end: () => {} };
}

/** Some gateways answer with the whole message, or an error, although a stream was asked for. */
function wholeAnswer(assembly: MessageAssembly): Reading {
  const pieces: string[] = [];
  return {
    feed: (text) => {
      pieces.push(text);
    },
    end: () => {
      const value = parse(pieces.join(""));
      if (isRecord(value) && value["type"] === "error") throw streamError(value["error"]);
      assembly.addWhole(value);
    },
  };
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
    return parseExact(data);
  } catch {
    throw malformed("not JSON");
  }
}

function malformed(why: string): ModelError {
  return new ModelError("malformed", `the model's answer cannot be read: ${why}`);
}

function streamError(error: unknown): ModelError {
  const type = isRecord(error) ? error["type"] : undefined;
  const message = describeError(error);
  return new ModelError(kindOfErrorEvent(type, message), message);
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null;
}

function classify(error: unknown, now: number): unknown {
  if (isModelError(error)) return error;
  if (error instanceof APIConnectionError || isAbort(error)) {
    return new ModelError("connection", `the model cannot be reached: ${describeError(error)}`);
  }
  if (error instanceof APIError) {
    const message = describeError(error);
    return new ModelError(
      kindOfStatus(error.status, error.type, message),
      sentenceOf(error, message),
      retryAfterMs(error.headers?.get("retry-after"), now),
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
