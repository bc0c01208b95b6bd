import { backoffMs } from "../runtime/backoff.ts";
import type { Clock } from "../runtime/clock.ts";
import { describeError } from "../runtime/errors.ts";
import type { Rng } from "../runtime/rng.ts";
import type { ApiOutage } from "./api-outage.ts";
import type { CallOptions } from "./client.ts";
import { isUnreachable, KubeError } from "./errors.ts";
import {
  type Answer,
  type Connection,
  type Exchange,
  HttpTransport,
  readText,
} from "./http-transport.ts";
import { answerError, connectionError } from "./kube-status.ts";
import type { RestClientMetrics } from "./metrics.ts";

export interface RestCallerDeps {
  userAgent: string;
  clock: Clock;
  rng: Pick<Rng, "next">;
  metrics: RestClientMetrics;
  outage: Pick<ApiOutage, "failed" | "answered">;
  /** Who we are, read again from its files when `fresh`. */
  connect(fresh: boolean): Promise<Connection>;
}

export interface Call {
  /** For metrics. */
  verb: string;
  method: string;
  path: string;
  /** For messages: `create Pod "team-a/hello"`. */
  what: string;
  contentType?: string;
  body?: unknown;
  options: CallOptions | undefined;
}

/** An answer that is read as it comes. */
export type AnswerStream = Awaited<ReturnType<HttpTransport["stream"]>>;

const TIMEOUT_MS = 30_000;
/** A server that asks for more patience than this gets it from the caller's own back-off. */
const MAX_WAIT_MS = 10_000;
const MAX_RETRIES = 3;
/** Identity is read again this often; the kubelet renews tokens long before they expire. */
const IDENTITY_MS = 30_000;

/** Sends calls: identity, deadline, bounded retries where the server asks for them, metrics. */
export class RestCaller {
  readonly #deps: RestCallerDeps;
  readonly #transport: HttpTransport;
  #connection: { value: Promise<Connection>; atMs: number } | undefined;

  constructor(deps: RestCallerDeps) {
    this.#deps = deps;
    this.#transport = new HttpTransport(deps.clock);
  }

  close(): void {
    this.#transport.close();
  }

  /** The body of a 2xx answer, parsed; throws KubeError for any other. */
  async json<R>(call: Call): Promise<R> {
    for (let attempt = 1; ; attempt += 1) {
      const answer = await this.#counted(call, (connection, exchange) =>
        this.#transport.exchange(connection, exchange),
      );
      if (answer.status >= 200 && answer.status < 300) {
        this.#deps.outage.answered();
        try {
          const parsed: R = JSON.parse(answer.body);
          return parsed;
        } catch (error) {
          throw connectionError(call.what, error, false);
        }
      }
      const error = answerError(call.what, answer.status, answer.body, answer.retryAfter);
      this.#told(error);
      await this.#beforeRetry(call, error, attempt);
    }
  }

  /** A 200 answer to read from; throws KubeError for any other. `signal` ends it at any time. */
  async stream(call: Call, signal: AbortSignal): Promise<AnswerStream> {
    const response = await this.#counted(call, (connection, exchange) =>
      this.#transport.stream(connection, { ...exchange, signal }),
    );
    if (response.statusCode === 200) {
      this.#deps.outage.answered();
      return response;
    }
    const body = await readText(response);
    const error = answerError(
      call.what,
      response.statusCode ?? 0,
      body,
      response.headers["retry-after"],
    );
    this.#told(error);
    if (error.status === 401) this.#connection = undefined;
    throw error;
  }

  #told(error: KubeError): void {
    if (isUnreachable(error)) this.#deps.outage.failed(describeError(error));
    else this.#deps.outage.answered();
  }

  /** Waits as the server asks, or throws the error when the call is not to be sent again. */
  async #beforeRetry(call: Call, error: KubeError, attempt: number): Promise<void> {
    const { clock, metrics, rng } = this.#deps;
    const { status } = error;
    // 401 may be a token that was replaced; it is read again once.
    const staleIdentity = status === 401 && attempt === 1;
    if (staleIdentity) this.#connection = undefined;
    const busy = status === 429 || (status === 503 && call.method === "GET");
    const waitMs = error.retryAfterMs ?? backoffMs(attempt, { baseMs: 250, maxMs: 2_000 }, rng);
    const retry = staleIdentity || (busy && attempt <= MAX_RETRIES && waitMs <= MAX_WAIT_MS);
    if (!retry) throw error;
    const { host } = await this.#identity(staleIdentity);
    metrics.retries.inc({ code: String(status), verb: call.verb, host });
    if (!staleIdentity) await clock.sleep(waitMs, call.options?.signal);
  }

  /** Builds the exchange, runs it, counts it, and turns socket errors into KubeErrors. */
  async #counted<R extends Answer | AnswerStream>(
    call: Call,
    run: (connection: Connection, exchange: Exchange) => Promise<R>,
  ): Promise<R> {
    const { clock, metrics } = this.#deps;
    const signal = call.options?.signal;
    signal?.throwIfAborted();
    const { connection, host } = await this.#identity(false);
    const start = clock.monotonic();
    let code = "<error>";
    try {
      const result = await run(connection, this.#exchange(call));
      code = String("status" in result ? result.status : result.statusCode);
      return result;
    } catch (error) {
      signal?.throwIfAborted();
      const timedOut = Error.isError(error) && error.name === "DeadlineError";
      const failure = connectionError(call.what, error, timedOut);
      this.#told(failure);
      throw failure;
    } finally {
      metrics.requests.inc({ code, method: call.method, host });
      const seconds = (clock.monotonic() - start) / 1000;
      metrics.requestSeconds.observe({ verb: call.verb, host }, seconds);
    }
  }

  #exchange({ method, path, contentType, body, options }: Call): Exchange {
    return {
      method,
      path,
      headers: {
        accept: "application/json",
        "user-agent": this.#deps.userAgent,
        ...(contentType === undefined ? {} : { "content-type": contentType }),
      },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      timeoutMs: options?.timeoutMs ?? TIMEOUT_MS,
      signal: options?.signal,
    };
  }

  async #identity(fresh: boolean): Promise<{ connection: Connection; host: string }> {
    const now = this.#deps.clock.monotonic();
    if (fresh || this.#connection === undefined || now - this.#connection.atMs > IDENTITY_MS) {
      this.#connection = { value: this.#deps.connect(fresh), atMs: now };
    }
    const held = this.#connection;
    try {
      const connection = await held.value;
      return { connection, host: new URL(connection.server).host };
    } catch (error) {
      if (this.#connection === held) this.#connection = undefined;
      const failure = new KubeError(`no identity for the API server: ${describeError(error)}`, {
        status: 0,
        reason: "Unreachable",
        cause: error,
      });
      this.#told(failure);
      throw failure;
    }
  }
}
