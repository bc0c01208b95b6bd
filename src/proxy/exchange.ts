import { once } from "node:events";
import type { IncomingHttpHeaders, IncomingMessage, ServerResponse } from "node:http";
import { AppError, codeOf } from "../runtime/errors.ts";
import type { Use } from "./audit.ts";
import { TIMEOUTS } from "./limits.ts";
import type { MemoryHold } from "./memory-budget.ts";
import { type Outcome, outcomeOf } from "./metrics.ts";

/**
 * One request and its answer, over node:http: bodies are counted while they arrive, writes wait for
 * the reader, and `signal` aborts when the caller goes away: the harness, or git in a sandbox.
 */
export class Exchange {
  readonly method: string;
  readonly path: string;
  readonly query: string;
  readonly headers: IncomingHttpHeaders;
  readonly signal: AbortSignal;
  /** For the audit record of this request. */
  readonly use: Use = { redactions: 0 };
  /** What this exchange keeps of its bodies is counted there, until its answer has left. */
  memory: MemoryHold | undefined;
  bytesIn = 0;
  bytesOut = 0;
  readonly #request: IncomingMessage;
  readonly #response: ServerResponse;

  constructor(request: IncomingMessage, response: ServerResponse) {
    const [path = "", ...query] = (request.url ?? "").split("?");
    this.method = request.method ?? "";
    this.path = path;
    this.query = query.join("?");
    this.headers = request.headers;
    this.#request = request;
    this.#response = response;
    const gone = new AbortController();
    this.signal = gone.signal;
    response.once("close", () => {
      if (!response.writableFinished) gone.abort();
      this.memory?.release();
    });
  }

  /** How it ended with this error; the code is kept for the audit unless one is there already. */
  fail(error: unknown): Outcome {
    const outcome = this.signal.aborted ? "aborted" : outcomeOf(error);
    this.use.error ??= outcome === "aborted" ? "ABORTED" : (codeOf(error) ?? "INTERNAL");
    return outcome;
  }

  get answered(): boolean {
    return this.#response.headersSent;
  }

  /** A header that came exactly once. */
  header(name: string): string | undefined {
    const value = this.headers[name];
    return typeof value === "string" ? value : undefined;
  }

  /** The body's length if the caller said it; throws INPUT_TOO_LARGE when that is past `limit`. */
  declaredLength(limit: number): number | undefined {
    const text = this.header("content-length");
    if (text === undefined) return undefined;
    const length = Number(text);
    if (length > limit) throw tooLarge(limit);
    return length;
  }

  /**
   * The body piece by piece; throws INPUT_TOO_LARGE as soon as it is longer than `limit`, and TIMEOUT
   * when nothing of it comes for `idleMs`; rejects with the reason of `until` when that aborts.
   */
  async *body(
    limit: number,
    idleMs: number = TIMEOUTS.requestIdleMs,
    until: AbortSignal = this.signal,
  ): AsyncGenerator<Buffer> {
    const chunks = this.#request[Symbol.asyncIterator]();
    try {
      for (;;) {
        // While the other side is slow to take what has come, the caller is not to blame.
        this.#request.socket.setTimeout(idleMs);
        const next = await this.#orLate(chunks.next(), idleMs, until);
        this.#request.socket.setTimeout(0);
        if (next.done === true) return;
        const bytes = Buffer.from(next.value);
        this.bytesIn += bytes.length;
        if (this.bytesIn > limit) throw tooLarge(limit);
        yield bytes;
      }
    } finally {
      this.#request.socket.setTimeout(0);
    }
  }

  /** Raced piece by piece: a promise that outlives a piece would keep it in memory. */
  async #orLate<T>(piece: Promise<T>, idleMs: number, until: AbortSignal): Promise<T> {
    const late = Promise.withResolvers<never>();
    const onTimeout = () => late.reject(tooLate(idleMs));
    const onAbort = () => late.reject(until.reason);
    this.#request.once("timeout", onTimeout);
    until.addEventListener("abort", onAbort);
    if (until.aborted) onAbort();
    try {
      return await Promise.race([piece, late.promise]);
    } finally {
      this.#request.off("timeout", onTimeout);
      until.removeEventListener("abort", onAbort);
    }
  }

  async text(limit: number): Promise<string> {
    this.declaredLength(limit);
    const chunks: Buffer[] = [];
    for await (const chunk of this.body(limit)) {
      this.memory?.add(chunk.length);
      chunks.push(chunk);
    }
    return Buffer.concat(chunks).toString("utf8");
  }

  /** A whole JSON answer. Closes the connection when the request was not read to its end. */
  sendJson(status: number, body: unknown, headers: Record<string, string> = {}): void {
    this.sendText(status, JSON.stringify(body), "application/json", headers);
  }

  sendText(
    status: number,
    text: string,
    contentType: string,
    headers: Record<string, string> = {},
  ): void {
    const length = Buffer.byteLength(text);
    this.bytesOut += length;
    this.#response.writeHead(status, {
      ...headers,
      ...(text === "" ? {} : { "content-type": contentType }),
      "content-length": length,
      ...(this.#request.readableEnded ? {} : { connection: "close" }),
    });
    this.#response.end(text);
  }

  /** Sends status and headers at once, so that a stream is seen to begin. */
  start(status: number, headers: Record<string, string>): void {
    this.#response.writeHead(status, headers);
    this.#response.flushHeaders();
  }

  /** Resolves when more may be written; rejects with the reason of `until` when that aborts: when the caller is gone. */
  async write(chunk: string | Uint8Array, until: AbortSignal = this.signal): Promise<void> {
    if (chunk.length === 0) return;
    until.throwIfAborted();
    this.bytesOut += chunk.length;
    if (!this.#response.write(chunk)) {
      await once(this.#response, "drain", { signal: until }).catch((error: unknown) => {
        // Not the AbortError around it: a deadline is to be told from a caller that is gone.
        until.throwIfAborted();
        throw error;
      });
    }
  }

  /** Waits for nobody. */
  end(lastChunk = ""): void {
    this.bytesOut += lastChunk.length;
    this.#response.end(lastChunk);
  }

  /** Breaks the connection off, so that a half answer is not taken for a whole one. */
  breakOff(): void {
    this.#response.destroy();
  }
}

function tooLate(idleMs: number): AppError {
  return new AppError("TIMEOUT", `nothing more of the request came for ${idleMs / 1000} s`);
}

function tooLarge(limit: number): AppError {
  return new AppError("INPUT_TOO_LARGE", `the request is larger than ${limit} bytes`, {
    details: { limit },
  });
}
