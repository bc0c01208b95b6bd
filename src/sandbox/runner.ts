import { mkdir, rm } from "node:fs/promises";
import { join } from "node:path";
import type { Duplex } from "node:stream";
import type { Clock } from "../runtime/clock.ts";
import { AppError, describeError } from "../runtime/errors.ts";
import type { Logger } from "../runtime/logger.ts";
import { encodeFrame, FrameReader } from "./frames.ts";
import { gitFiles } from "./git-config.ts";
import { OutputStore } from "./output-store.ts";
import { killAll } from "./processes.ts";
import { Repositories } from "./repositories.ts";
import type { RunnerConfig } from "./runner-config.ts";
import {
  type FromRunner,
  MAX_FROM_RUNNER_BYTES,
  MAX_TO_RUNNER_BYTES,
  type RunResult,
  type ToRunner,
  toRunner,
} from "./runner-protocol.ts";
import { ToolHost } from "./tool-host.ts";
import { createTools, RUN_FOLDER, shellEnvironment } from "./tools/tools.ts";

export interface RunnerOptions {
  config: RunnerConfig;
  /** The connection to the daemon. */
  stream: Duplex;
  clock: Clock;
  logger: Logger;
}

/**
 * Serves a daemon with the tools until the connection ends, then kills all that it started. Kills what
 * an earlier runner of this sandbox left running before it takes calls. Throws CONFIG_INVALID when it
 * cannot use its folders.
 */
export async function serveTools({ config, stream, clock, logger }: RunnerOptions): Promise<void> {
  stream.on("error", () => {});
  await prepareFolders(config);
  await killAll(clock, undefined, config.sandboxId);
  const repositories = new Repositories({
    workspace: config.workspace,
    files: gitFiles(config.stateDir),
    env: shellEnvironment(config),
    clock,
    logger: logger.child({ component: "repositories" }),
  });
  await repositories.recover();
  const host = new ToolHost({
    tools: createTools(config, clock),
    outputs: new OutputStore(config),
    clock,
    logger: logger.child({ component: "tools" }),
  });
  const session = new RunnerSession(stream, host, repositories, logger);
  await session.serve();
  await Promise.all([host.close(), repositories.close()]);
  await killAll(clock, undefined, config.sandboxId);
}

async function prepareFolders(config: RunnerConfig): Promise<void> {
  try {
    await mkdir(config.workspace, { recursive: true });
    await rm(join(config.stateDir, RUN_FOLDER), { recursive: true, force: true });
  } catch (cause) {
    throw new AppError("CONFIG_INVALID", "workspace or runner folder cannot be used", { cause });
  }
}

/** One connection, as the runner sees it. */
class RunnerSession {
  readonly #stream: Duplex;
  readonly #host: ToolHost;
  readonly #repositories: Repositories;
  readonly #logger: Logger;
  readonly #running = new Map<number, AbortController>();

  constructor(stream: Duplex, host: ToolHost, repositories: Repositories, logger: Logger) {
    this.#stream = stream;
    this.#host = host;
    this.#repositories = repositories;
    this.#logger = logger;
  }

  /** Resolves when the connection has ended. */
  async serve(): Promise<void> {
    const reader = new FrameReader(MAX_TO_RUNNER_BYTES);
    const ended = new Promise<void>((resolve) => {
      for (const event of ["end", "close"]) this.#stream.once(event, () => resolve());
      if (this.#stream.destroyed || this.#stream.readableEnded) resolve();
    });
    this.#stream.on("data", (chunk: Buffer) => {
      try {
        for (const message of reader.push(chunk)) this.#take(toRunner.parse(message));
      } catch (error) {
        this.#logger.error({ err: describeError(error) }, "daemon broke the protocol");
        this.#stream.destroy();
      }
    });
    this.#send({ t: "hello" });
    await ended;
    for (const stop of this.#running.values()) stop.abort(new Error("the sandbox was stopped"));
    this.#stream.destroy();
  }

  #take(message: ToRunner): void {
    switch (message.t) {
      case "run":
        void this.#run(message);
        break;
      case "repositories":
        void this.#setRepositories(message);
        break;
      case "cancel":
        this.#running.get(message.call)?.abort(new Error(message.reason));
        break;
      case "ping":
        this.#send({ t: "pong" });
        break;
    }
  }

  async #run({ call, id, name, input }: Extract<ToRunner, { t: "run" }>): Promise<void> {
    const stop = new AbortController();
    this.#running.set(call, stop);
    try {
      const onTail = (tail: Buffer) =>
        this.#send({ t: "tail", call, tail: tail.toString("base64") });
      const result = await this.#host.run({ id, name, input }, stop.signal, onTail);
      this.#answer(call, result);
    } catch (error) {
      this.#fail(call, error);
    } finally {
      this.#running.delete(call);
    }
  }

  /** A tool that says more than the daemon takes must not cost the connection. */
  #answer(call: number, result: RunResult): void {
    const frame = encodeFrame({ t: "result", call, result } satisfies FromRunner);
    if (frame.length <= MAX_FROM_RUNNER_BYTES) this.#stream.write(frame);
    else this.#fail(call, new AppError("INPUT_TOO_LARGE", "the result is too large to be told"));
  }

  async #setRepositories(message: Extract<ToRunner, { t: "repositories" }>): Promise<void> {
    const { call, request, waitMs } = message;
    try {
      const response = await this.#repositories.set(request, waitMs);
      this.#send({ t: "repositories", call, response });
    } catch (error) {
      this.#fail(call, error);
    }
  }

  #fail(call: number, error: unknown): void {
    this.#logger.error({ err: describeError(error) }, "call failed");
    const message = error instanceof AppError ? error.message : "it failed inside the sandbox";
    this.#send({ t: "error", call, message: message.slice(0, 4000) });
  }

  #send(message: FromRunner): void {
    if (this.#stream.writable) this.#stream.write(encodeFrame(message));
  }
}
