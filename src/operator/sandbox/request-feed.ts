import { Waker, type Watch } from "../../kube/controller.ts";
import type { Clock } from "../../runtime/clock.ts";
import { describeError, isAbort } from "../../runtime/errors.ts";
import type { Logger } from "../../runtime/logger.ts";
import type { OperatorLog, SandboxRequest } from "../../sessions/session-log.ts";
import { sandboxKey } from "./sandbox-key.ts";

/**
 * Follows the sandbox requests of all sessions and keeps them until they are answered. The log tells
 * an open request again and again, so what this process forgets is not lost. Survives a store that
 * is down.
 */

export interface RequestFeedDeps {
  log: Pick<OperatorLog, "requests" | "answered">;
  clock: Clock;
  logger: Logger;
}

interface OpenRequest {
  request: SandboxRequest;
  /** Epoch ms. */
  firstSeen: number;
}

export type OpenRequests = { [K in SandboxRequest["kind"]]?: OpenRequest };

const RETRY_MS = 1_000;

export class RequestFeed {
  readonly #deps: RequestFeedDeps;
  readonly #open = new Map<string, OpenRequests>();
  readonly #waker = new Waker();

  constructor(deps: RequestFeedDeps) {
    this.#deps = deps;
  }

  readonly watch: Watch = (enqueue) => {
    const stop = this.#waker.watch(enqueue);
    for (const key of this.#open.keys()) enqueue.add(key);
    return stop;
  };

  open(key: string): OpenRequests {
    return this.#open.get(key) ?? {};
  }

  /** The answers to these are in the log: it may forget them. What came meanwhile stays open. */
  async answered(key: string, seen: OpenRequests): Promise<void> {
    for (const { request } of Object.values(seen)) {
      await this.#deps.log.answered(request);
      this.#forget(key, request);
    }
  }

  #forget(key: string, { kind, requestId }: SandboxRequest): void {
    const { [kind]: open, ...others } = this.open(key);
    if (open?.request.requestId !== requestId) return;
    if (Object.keys(others).length > 0) this.#open.set(key, others);
    else this.#open.delete(key);
  }

  async run(signal: AbortSignal): Promise<void> {
    const { log, clock, logger } = this.#deps;
    while (!signal.aborted) {
      try {
        for await (const request of log.requests(signal)) this.#take(request);
      } catch (error) {
        if (signal.aborted || isAbort(error)) return;
        logger.debug(
          { err: describeError(error) },
          "sandbox requests cannot be read; trying again",
        );
        await clock.sleep(RETRY_MS, signal).catch(() => {});
      }
    }
  }

  #take(request: SandboxRequest): void {
    const key = sandboxKey(request);
    const open = this.open(key);
    const known = open[request.kind]?.request.requestId === request.requestId;
    if (!known) {
      const entry = { request, firstSeen: this.#deps.clock.now() };
      this.#open.set(key, { ...open, [request.kind]: entry });
    }
    this.#waker.add(key);
  }
}
