/**
 * HTTP to the API server on kept-alive connections. Every exchange has a deadline; a connection
 * whose other end is gone without a word is noticed by TCP keep-alive within half a minute.
 */
import { Agent as HttpAgent, request as httpRequest, type IncomingMessage } from "node:http";
import { Agent as HttpsAgent, request as httpsRequest, type RequestOptions } from "node:https";
import type { Clock } from "../runtime/clock.ts";

/** Where the server is and how we prove who we are; asked for before each request. */
export interface Connection {
  /** `https://host:port`, perhaps with a path. */
  server: string;
  headers: Record<string, string>;
  /** ca, cert, key, servername, rejectUnauthorized. */
  tls: RequestOptions;
  /** Set where the cluster is reached through a proxy. */
  agent?: RequestOptions["agent"];
}

export interface Exchange {
  method: string;
  /** Path and query. */
  path: string;
  headers: Record<string, string>;
  body?: string;
  /** Until the whole answer is there; for a stream, until its head is. */
  timeoutMs: number;
  signal?: AbortSignal | undefined;
}

export interface Answer {
  status: number;
  retryAfter: string | undefined;
  body: string;
}

/** The deadline of an exchange has passed. */
class DeadlineError extends Error {
  constructor(message: string) {
    super(message);
    this.name = "DeadlineError";
  }
}

/** Below the API server's own idle limit of 90 s, so that it is us who close. */
const IDLE_MS = 60_000;
const KEEP_ALIVE_MS = 15_000;

export class HttpTransport {
  readonly #clock: Clock;
  readonly #https = new HttpsAgent({ keepAlive: true, timeout: IDLE_MS, scheduling: "lifo" });
  readonly #http = new HttpAgent({ keepAlive: true, timeout: IDLE_MS, scheduling: "lifo" });

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** One request and its whole answer, whatever its status. Throws DeadlineError and socket errors. */
  async exchange(connection: Connection, exchange: Exchange): Promise<Answer> {
    const stop = this.#deadline(exchange);
    try {
      const response = await this.#open(connection, exchange, stop.signal);
      const body = await readText(response);
      return {
        status: response.statusCode ?? 0,
        retryAfter: response.headers["retry-after"],
        body,
      };
    } catch (error) {
      // While the body is read, Node reports its own AbortError and hides our reason.
      throw reasonOf(stop.signal) ?? error;
    } finally {
      stop.cancel();
    }
  }

  /**
   * One request whose answer is read as it comes. The deadline ends with the head; afterwards
   * `signal` alone aborts.
   */
  async stream(connection: Connection, exchange: Exchange): Promise<IncomingMessage> {
    const stop = this.#deadline(exchange);
    try {
      return await this.#open(connection, exchange, stop.signal);
    } finally {
      stop.cancel();
    }
  }

  /** Closes idle connections; running exchanges are ended by their signals. */
  close(): void {
    this.#https.destroy();
    this.#http.destroy();
  }

  #open(connection: Connection, exchange: Exchange, signal: AbortSignal): Promise<IncomingMessage> {
    const url = new URL(connection.server);
    const secure = url.protocol === "https:";
    const base = url.pathname.replace(/\/$/, "");
    const options: RequestOptions = {
      ...connection.tls,
      method: exchange.method,
      host: url.hostname.replace(/^\[|\]$/g, ""),
      port: url.port || (secure ? 443 : 80),
      path: `${base}${exchange.path}`,
      headers: { ...exchange.headers, ...connection.headers, ...lengthOf(exchange.body) },
      agent: connection.agent ?? (secure ? this.#https : this.#http),
      signal,
    };
    return new Promise((resolve, reject) => {
      const request = secure ? httpsRequest(options) : httpRequest(options);
      request.on("socket", (socket) => socket.setKeepAlive(true, KEEP_ALIVE_MS));
      request.on("response", resolve);
      request.on("error", (error) => reject(reasonOf(signal) ?? error));
      request.end(exchange.body);
    });
  }

  /** A signal that aborts at the deadline or with the caller's own. */
  #deadline({ timeoutMs, signal, method, path }: Exchange) {
    const late = new AbortController();
    const cancel = this.#clock.timer(timeoutMs, () => {
      const where = path.split("?")[0] ?? path;
      late.abort(new DeadlineError(`${method} ${where} got no answer within ${timeoutMs} ms`));
    });
    const both = signal === undefined ? late.signal : AbortSignal.any([signal, late.signal]);
    return { signal: both, cancel };
  }
}

function reasonOf(signal: AbortSignal): Error | undefined {
  const reason: unknown = signal.reason;
  return signal.aborted && Error.isError(reason) ? reason : undefined;
}

/** Node sends the body of a DELETE without its length unless told, which breaks the connection. */
function lengthOf(body: string | undefined): Record<string, string> {
  return body === undefined ? {} : { "content-length": `${Buffer.byteLength(body)}` };
}

/** A whole body as UTF-8. */
export async function readText(stream: AsyncIterable<Uint8Array>): Promise<string> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of stream) chunks.push(chunk);
  return Buffer.concat(chunks).toString("utf8");
}
