import type { Duplex } from "node:stream";
import type { RepositoriesRequest, RepositoriesResponse } from "../protocol/sandbox-api.ts";
import type { Clock } from "../runtime/clock.ts";
import { AppError, describeError } from "../runtime/errors.ts";
import type { Logger } from "../runtime/logger.ts";
import { encodeFrame, FrameReader } from "./frames.ts";
import {
  type FromRunner,
  fromRunner,
  MAX_FROM_RUNNER_BYTES,
  type RunResult,
  type ToRunner,
} from "./runner-protocol.ts";

/** A runner that comes back, comes back within this; then whoever waits is told. */
const WAIT_MS = 30_000;
const PING_MS = 10_000;
/** A machine that is busy to the brim delays an answer for seconds, not for this long. */
const SILENT_MS = 60_000;
/** Time for the runner to end what it started, once its connection is closed. */
const CLOSE_MS = 3000;

const ABSENT = "the process that runs the tools of this sandbox is not there";
const SILENT =
  "the process that runs the tools of this sandbox does not answer; its code may have stopped it";

export interface RunnerCall {
  id: string;
  name: string;
  input: Record<string, unknown>;
}

/** Where the executor has its tool calls run. */
export interface ToolRunner {
  /** Undefined while calls are taken, else why not. */
  readonly problem: string | undefined;
  /** Resolves when calls are taken or the signal has aborted; throws UNAVAILABLE after 30 s. */
  ready(signal: AbortSignal): Promise<void>;
  /** `lost`: the runner was gone before it said how the call ended. */
  run(
    call: RunnerCall,
    signal: AbortSignal,
    onTail: (tail: Buffer) => void,
  ): Promise<RunResult | "lost">;
}

interface Pending {
  take(message: FromRunner): void;
  lose(): void;
}

export interface RunnerLinkOptions {
  clock: Clock;
  logger: Logger;
}

/**
 * The daemon's end of the connection to its runner; one at a time. Everything that comes from there is
 * foreign: limited in size, checked against the protocol, and dropped when nobody asked for it.
 */
export class RunnerLink implements ToolRunner {
  readonly #options: RunnerLinkOptions;
  readonly #pending = new Map<number, Pending>();
  readonly #waiting = new Set<() => void>();
  #stream: Duplex | undefined;
  #greeted = false;
  #heardMs = 0;
  #silent = false;
  #next = 0;

  constructor(options: RunnerLinkOptions) {
    this.#options = options;
  }

  get problem(): string | undefined {
    if (!this.#greeted) return ABSENT;
    return this.#silent ? SILENT : undefined;
  }

  /** Uses this connection until it ends, and resolves then. Throws INTERNAL while there is another. */
  async attach(stream: Duplex): Promise<void> {
    if (this.#stream !== undefined) throw new AppError("INTERNAL", "there is a runner already");
    this.#stream = stream;
    this.#heardMs = this.#options.clock.monotonic();
    const ended = new Promise<void>((resolve) => stream.once("close", () => resolve()));
    const reader = new FrameReader(MAX_FROM_RUNNER_BYTES);
    stream.on("error", () => {});
    // A runner that says it is done is done, whatever is still under way to it.
    stream.on("end", () => stream.destroy());
    stream.on("data", (chunk: Buffer) => {
      try {
        for (const message of reader.push(chunk)) this.#take(fromRunner.parse(message));
      } catch (error) {
        this.#options.logger.error({ err: describeError(error) }, "runner broke the protocol");
        stream.destroy();
      }
    });
    const stopWatching = this.#watch();
    // The first word tells the runner that it was let in.
    this.#send({ t: "ping" });
    await ended;
    stopWatching();
    this.#stream = undefined;
    this.#greeted = false;
    this.#silent = false;
    this.#loseAll();
  }

  async ready(signal: AbortSignal): Promise<void> {
    const { clock } = this.#options;
    const end = clock.monotonic() + WAIT_MS;
    while (this.problem !== undefined && !signal.aborted) {
      const left = end - clock.monotonic();
      if (left <= 0) {
        throw new AppError("UNAVAILABLE", `no call is taken: ${this.problem}`, { retryable: true });
      }
      await this.#change(left, signal);
    }
  }

  async run(
    { id, name, input }: RunnerCall,
    signal: AbortSignal,
    onTail: (tail: Buffer) => void,
  ): Promise<RunResult | "lost"> {
    const { promise, resolve } = Promise.withResolvers<RunResult | "lost">();
    const call = this.#ask((own) => ({ t: "run", call: own, id, name, input }), {
      take: (message) => {
        if (message.t === "tail") onTail(Buffer.from(message.tail, "base64"));
        if (message.t === "result") resolve(message.result);
        if (message.t === "error") resolve(failed(message.message));
      },
      lose: () => resolve("lost"),
    });
    const onAbort = () => {
      const reason = signal.reason instanceof Error ? signal.reason.message : "stopped";
      this.#send({ t: "cancel", call, reason });
    };
    if (signal.aborted) onAbort();
    signal.addEventListener("abort", onAbort, { once: true });
    try {
      return await promise;
    } finally {
      signal.removeEventListener("abort", onAbort);
      this.#pending.delete(call);
    }
  }

  /** Throws UNAVAILABLE when there is no runner, or when it goes meanwhile. */
  async set(
    request: RepositoriesRequest,
    waitMs: number | undefined,
  ): Promise<RepositoriesResponse> {
    await this.ready(new AbortController().signal);
    const { promise, resolve, reject } = Promise.withResolvers<RepositoriesResponse>();
    const refuse = (message: string) =>
      reject(new AppError("UNAVAILABLE", message, { retryable: true }));
    const wait = waitMs === undefined ? {} : { waitMs };
    const call = this.#ask((own) => ({ t: "repositories", call: own, request, ...wait }), {
      take: (message) => {
        if (message.t === "repositories") resolve(message.response);
        if (message.t === "error") refuse(message.message);
      },
      lose: () => refuse(ABSENT),
    });
    return await promise.finally(() => this.#pending.delete(call));
  }

  /** Ends the connection and gives the runner time to end what it started. */
  async close(): Promise<void> {
    const stream = this.#stream;
    if (stream === undefined) return;
    const closed = new Promise<void>((resolve) => stream.once("close", () => resolve()));
    const cancel = this.#options.clock.timer(CLOSE_MS, () => stream.destroy());
    stream.end();
    await closed;
    cancel();
  }

  #ask(message: (call: number) => ToRunner, pending: Pending): number {
    this.#next += 1;
    this.#pending.set(this.#next, pending);
    if (this.problem === undefined) this.#send(message(this.#next));
    else pending.lose();
    return this.#next;
  }

  #send(message: ToRunner): void {
    this.#stream?.write(encodeFrame(message));
  }

  #take(message: FromRunner): void {
    this.#heardMs = this.#options.clock.monotonic();
    if (message.t === "hello") this.#greeted = true;
    if (this.#silent || message.t === "hello") {
      this.#silent = false;
      for (const wake of this.#waiting) wake();
    }
    if ("call" in message) this.#pending.get(message.call)?.take(message);
  }

  /**
   * Asks for a sign of life. A runner that gives none keeps its connection: the place must not become
   * free for a program that stopped it. Its calls end as lost.
   */
  #watch(): () => void {
    const { clock, logger } = this.#options;
    let cancel = () => {};
    const look = () => {
      this.#send({ t: "ping" });
      if (!this.#silent && clock.monotonic() - this.#heardMs > SILENT_MS) {
        logger.error({}, "runner does not answer");
        this.#silent = true;
        for (const call of this.#pending.keys()) this.#send({ t: "cancel", call, reason: "lost" });
        this.#loseAll();
      }
      cancel = clock.timer(PING_MS, look);
    };
    cancel = clock.timer(PING_MS, look);
    return () => cancel();
  }

  #loseAll(): void {
    for (const pending of this.#pending.values()) pending.lose();
    this.#pending.clear();
  }

  async #change(ms: number, signal: AbortSignal): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    const cancel = this.#options.clock.timer(ms, resolve);
    this.#waiting.add(resolve);
    signal.addEventListener("abort", () => resolve(), { once: true });
    await promise;
    cancel();
    this.#waiting.delete(resolve);
  }
}

function failed(content: string): RunResult {
  return { content, is_error: true, aborted: false, outputBytes: 0 };
}
