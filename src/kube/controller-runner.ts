import { aborted } from "../runtime/abort.ts";
import type { Clock } from "../runtime/clock.ts";
import { codeOf, describeError, hasCode } from "../runtime/errors.ts";
import type { Logger } from "../runtime/logger.ts";
import type { Rng } from "../runtime/rng.ts";
import type { Controller } from "./controller.ts";
import {
  isConflict,
  isKubeError,
  isNotFound,
  isTooManyRequests,
  isUnreachable,
  retryAfterOf,
} from "./errors.ts";
import type { KubeMetrics, ReconcileResult } from "./metrics.ts";
import { refOf } from "./objects.ts";
import { isTerminal, type Outcome } from "./outcome.ts";
import { WorkQueue } from "./work-queue.ts";

export interface ControllerRunnerDeps {
  controller: Controller;
  clock: Clock;
  rng: Rng;
  logger: Logger;
  metrics: Pick<KubeMetrics, "controller" | "workQueue">;
  /** How long a running pass may go on after a stop before its signal aborts. Default 5 s. */
  gracePeriodMs?: number;
}

/** The reason a signal has when a lease is lost: passes are aborted without grace. */
export const LEASE_LOST = "LEASE_LOST";

const RESULTS: readonly ReconcileResult[] = ["success", "error", "requeue", "requeue_after"];
/** After its signal aborted a pass has this long to end before the runner leaves it behind. */
const ABANDON_MS = 5_000;

/** Runs one controller: its watches fill a queue, its workers empty it, each key by one at a time. */
export class ControllerRunner {
  readonly name: string;
  readonly #deps: ControllerRunnerDeps;
  readonly #labels: { controller: string };
  readonly #abort = new AbortController();
  readonly #queue: WorkQueue;

  constructor(deps: ControllerRunnerDeps) {
    this.#deps = deps;
    this.name = deps.controller.name;
    this.#labels = { controller: this.name };
    this.#queue = new WorkQueue({
      name: this.name,
      clock: deps.clock,
      rng: deps.rng,
      metrics: deps.metrics.workQueue,
    });
    this.#zeroMetrics();
  }

  /** Starts the watches and works until the signal aborts; running passes may end in grace. */
  async run(signal: AbortSignal): Promise<void> {
    const { controller, clock, logger } = this.#deps;
    const stops = controller.watches.map((watch) => watch(this.#queue));
    const workers = Array.from({ length: controller.concurrency ?? 4 }, () => this.#work());
    logger.info({ controller: this.name, workers: workers.length }, "controller started");
    await aborted(signal);
    for (const stop of stops) stop();
    this.#queue.close();
    const grace = codeOf(signal.reason) === LEASE_LOST ? 0 : (this.#deps.gracePeriodMs ?? 5_000);
    const over = Promise.all(workers).then(() => true);
    const late = new AbortController();
    if (grace === 0) this.#abort.abort(signal.reason);
    const cancel = clock.timer(grace, () => this.#abort.abort(signal.reason));
    const abandoned = clock.sleep(grace + ABANDON_MS, late.signal).then(
      () => false,
      () => true,
    );
    const ended = await Promise.race([over, abandoned]);
    cancel();
    late.abort();
    if (ended) logger.info({ controller: this.name }, "controller stopped");
    else logger.error({ controller: this.name }, "a pass ignores its signal and is left behind");
  }

  async #work(): Promise<void> {
    for (;;) {
      const key = await this.#queue.take();
      if (key === undefined) return;
      try {
        await this.#pass(key);
      } finally {
        this.#queue.done(key);
      }
    }
  }

  async #pass(key: string): Promise<void> {
    const { controller, clock, metrics, rng } = this.#deps;
    const reconcileId = rng.id("pass");
    const logger = this.#deps.logger.child({ controller: this.name, ...refOf(key), reconcileId });
    const timeout = new AbortController();
    const limitMs = controller.passTimeoutMs ?? 60_000;
    const cancel = clock.timer(limitMs, () => {
      metrics.controller.timeouts.inc(this.#labels);
      timeout.abort(new Error(`the pass took longer than ${limitMs} ms`));
    });
    const signal = AbortSignal.any([this.#abort.signal, timeout.signal]);
    const start = clock.monotonic();
    metrics.controller.activeWorkers.inc(this.#labels);
    try {
      const outcome = await controller.reconcile(key, { signal, logger, reconcileId });
      this.#ended(key, outcome, logger);
    } catch (error) {
      this.#failed(key, error, logger);
    } finally {
      cancel();
      metrics.controller.activeWorkers.dec(this.#labels);
      const seconds = (clock.monotonic() - start) / 1000;
      metrics.controller.reconcileSeconds.observe(this.#labels, seconds);
    }
  }

  #ended(key: string, outcome: Outcome, logger: Logger): void {
    this.#queue.forget(key);
    switch (outcome.kind) {
      case "settled":
        if (outcome.recheckAfterMs === undefined) {
          this.#count("success");
        } else {
          this.#queue.addAfter(key, outcome.recheckAfterMs);
          this.#count("requeue_after");
        }
        logger.debug({}, "settled");
        return;
      case "waiting":
        this.#queue.addAfter(key, outcome.retryAfterMs);
        this.#count("requeue_after");
        logger.debug({ reason: outcome.reason, retryAfterMs: outcome.retryAfterMs }, "waiting");
        return;
      case "stalled":
        this.#count("success");
        logger.info({ reason: outcome.reason, err: outcome.message }, "stalled");
    }
  }

  #failed(key: string, error: unknown, logger: Logger): void {
    if (this.#abort.signal.aborted) {
      logger.debug({ err: describeError(error) }, "pass stopped");
      return;
    }
    if (isConflict(error) || isNotFound(error) || isTooManyRequests(error)) {
      // The world moved, or asks for time: waiting, not failing. Backed off all the same, so that
      // a conflict which never ends cannot spin.
      const afterMs = retryAfterOf(error);
      if (afterMs === undefined) this.#queue.addRateLimited(key);
      else this.#queue.addAfter(key, afterMs);
      this.#count(afterMs === undefined ? "requeue" : "requeue_after");
      logger.debug({ err: describeError(error) }, "pass overtaken");
      return;
    }
    const { metrics } = this.#deps;
    this.#count("error");
    metrics.controller.reconcileErrors.inc(this.#labels);
    if (isBug(error)) metrics.controller.panics.inc(this.#labels);
    const fields = { err: describeError(error), code: codeOf(error) ?? "INTERNAL" };
    if (isTerminal(error)) {
      this.#queue.forget(key);
      metrics.controller.terminalErrors.inc(this.#labels);
      logger.error(fields, "pass failed for good");
      return;
    }
    this.#queue.addRateLimited(key);
    const attempt = this.#queue.failures(key);
    // Where a bug is, not only what it said; stack traces stay in the log.
    const stack = isBug(error) && Error.isError(error) ? { stack: error.stack } : {};
    const level = isToldElsewhere(error) ? "debug" : "error";
    logger[level]({ ...fields, ...stack, attempt }, "pass failed");
  }

  #count(result: ReconcileResult): void {
    this.#deps.metrics.controller.reconcileTotal.inc({ ...this.#labels, result });
  }

  #zeroMetrics(): void {
    const { controller } = this.#deps.metrics;
    for (const result of RESULTS) controller.reconcileTotal.inc({ ...this.#labels, result }, 0);
    for (const counter of [
      controller.reconcileErrors,
      controller.terminalErrors,
      controller.panics,
      controller.timeouts,
    ]) {
      counter.inc(this.#labels, 0);
    }
    controller.reconcileSeconds.zero(this.#labels);
    controller.activeWorkers.set(this.#labels, 0);
    controller.maxConcurrent.set(this.#labels, this.#deps.controller.concurrency ?? 4);
  }
}

/** An outage: of the API server tells its client, of the session store the connection to it. */
function isToldElsewhere(error: unknown): boolean {
  if (isKubeError(error)) return isUnreachable(error);
  return hasCode(error, "REDIS_UNREACHABLE") || hasCode(error, "UNAVAILABLE");
}

/** What Go would call a panic: something thrown that is no error, or a programming mistake. */
function isBug(error: unknown): boolean {
  if (!Error.isError(error)) return true;
  return ["TypeError", "ReferenceError", "RangeError"].includes(error.name);
}
