import type { SandboxClient } from "../protocol/sandbox-client.ts";
import type { IdleReason, NewSessionEvent } from "../protocol/session-event.ts";
import type { EdgeLocator } from "./edge-address.ts";
import type { McpHands } from "./mcp-hands.ts";
import type { Model, ModelError } from "./model.ts";
import { decideRetry } from "./model-retry.ts";
import { nextStep, pendingCalls, type Step } from "./next-step.ts";
import { newEvent, type RunContext } from "./run-context.ts";
import { headAndTail } from "./safe-text.ts";
import { SandboxHands } from "./sandbox-hands.ts";
import { SessionTools } from "./session-tools.ts";
import type { SessionTokens } from "./tokens.ts";
import { ToolRound } from "./tool-round.ts";
import { askModel, compactIfNeeded, type Fit } from "./turn.ts";

export interface SessionRunDeps extends RunContext {
  model: Model;
  tokens: SessionTokens;
  mcp: McpHands;
  sandboxClient: (token: (address: string) => Promise<string>) => SandboxClient;
  edge: EdgeLocator | undefined;
}

/** An endpoint's own words may be of any length. */
const ERROR_CHARS = 4000;
/** So often in a row a request is made smaller because it was refused as too long. */
const MAX_REFUSALS = 8;
const NOT_REFUSED: Fit = { forced: false, refusals: 0 };

export type RunEnd = "released" | "handed_over";

/**
 * One hold of one session (docs/design/session-log.md#worker): look at the log, do the next thing,
 * until there is nothing to do or the session is to be handed over. It may die at any line: whoever
 * claims the session next reads the log and goes on.
 */
export class SessionRun {
  readonly #deps: SessionRunDeps;
  readonly #sandbox: SandboxHands;
  readonly #tools: SessionTools;
  /** Failed attempts of the current request, in a row. */
  #failures = 0;
  /** The API has refused the last request as too long, so often in a row; `forced` until it was made smaller. */
  #fit: Fit = NOT_REFUSED;
  #turnStarted: number;

  constructor(deps: SessionRunDeps) {
    this.#deps = deps;
    this.#sandbox = new SandboxHands(deps);
    this.#tools = new SessionTools(deps);
    this.#turnStarted = deps.clock.monotonic();
  }

  async run(): Promise<RunEnd> {
    const { journal, signals } = this.#deps;
    await journal.load();
    for (;;) {
      signals.dead.throwIfAborted();
      if (signals.leave.aborted) return await this.#handOver();
      const end = await this.#take(nextStep(journal.state));
      if (end !== undefined) return end;
    }
  }

  /** Undefined: look at the log again. */
  async #take(step: Step): Promise<RunEnd | undefined> {
    const { journal, rng } = this.#deps;
    switch (step.kind) {
      case "abandon":
        await journal.append([
          newEvent(rng, "model.request_abandoned", { req: step.req, reason: "worker_lost" }),
        ]);
        return undefined;
      case "tools":
        await this.#runTools();
        return undefined;
      case "request":
        return await this.#request();
      case "idle":
        return await this.#idle(step);
      case "suspend":
        return released(await journal.release({ kind: "suspended" }));
      case "terminate":
        return await this.#terminate(step.reason);
      case "closed":
        return released(await journal.release({ kind: "terminated", why: "stop" }));
    }
  }

  async #runTools(): Promise<void> {
    await new ToolRound({ ...this.#deps, sandbox: this.#sandbox }).run();
  }

  async #request(): Promise<RunEnd | undefined> {
    const catalog = await this.#tools.catalog();
    if (!this.#stillWanted()) return undefined;
    const compaction = await compactIfNeeded(this.#deps, catalog, this.#fit);
    if (compaction.kind === "stuck") {
      const message =
        "the context does not fit the model's window, and nothing is left that could be summarised or cut";
      return await this.#giveUp("compaction_limit_reached_error", message);
    }
    if (compaction.kind === "failed") return await this.#afterFailure(compaction.error);
    if (compaction.kind !== "not_needed") this.#fit = { ...this.#fit, forced: false };
    // What a summary leaves may still be too large.
    if (compaction.kind === "compacted" || !this.#stillWanted()) return undefined;
    const resultChars = compaction.kind === "shrink" ? compaction.resultChars : undefined;
    const end = await askModel(this.#deps, catalog, resultChars);
    if (end.kind === "answered") {
      this.#failures = 0;
      this.#fit = NOT_REFUSED;
      if (end.committed) this.#sandbox.acknowledge();
    } else if (end.kind === "failed") {
      return await this.#afterFailure(end.error);
    }
    return undefined;
  }

  /** False when the log says something else by now: listing tools and summaries take their time. */
  #stillWanted(): boolean {
    return nextStep(this.#deps.journal.state).kind === "request";
  }

  async #afterFailure(failure: ModelError): Promise<RunEnd | undefined> {
    const { clock, journal, logger, metrics, rng, signals } = this.#deps;
    if (failure.kind === "too_long" && this.#fit.refusals < MAX_REFUSALS) {
      this.#fit = { forced: true, refusals: this.#fit.refusals + 1 };
      return undefined;
    }
    this.#failures += 1;
    const decision = decideRetry(failure, this.#failures, rng);
    if (decision.kind === "give_up") {
      const message = [failure.message, decision.why].filter((part) => part !== undefined);
      return await this.#giveUp(decision.errorType, message.join("; "));
    }
    if (this.#failures === 1) {
      const data = {
        type: decision.errorType,
        message: headAndTail(failure.message, ERROR_CHARS),
        retry_status: "retrying" as const,
      };
      await journal.append([newEvent(rng, "session.error", data)]);
    }
    logger.info(
      { reason: failure.kind, attempt: this.#failures, durationMs: decision.afterMs },
      "model request failed, trying again",
    );
    metrics.modelRetryWait.inc(decision.afterMs / 1000);
    const wake = new AbortController();
    const stop = journal.onChange(() => {
      if (!this.#stillWanted()) wake.abort();
    });
    await clock
      .sleep(decision.afterMs, AbortSignal.any([wake.signal, signals.leave, signals.dead]))
      .catch(() => {});
    stop();
    return undefined;
  }

  /** This turn is dead: says so, and waits for somebody to send something. */
  async #giveUp(
    type: Extract<NewSessionEvent, { type: "session.error" }>["data"]["type"],
    message: string,
  ): Promise<RunEnd | undefined> {
    const { rng, logger } = this.#deps;
    this.#failures = 0;
    this.#fit = NOT_REFUSED;
    logger.warn({ reason: type }, "turn given up");
    const error = newEvent(rng, "session.error", {
      type,
      message: headAndTail(message, ERROR_CHARS),
      retry_status: "exhausted",
    });
    return await this.#appendIdle("retries_exhausted", [error]);
  }

  async #idle(step: Extract<Step, { kind: "idle" }>): Promise<RunEnd | undefined> {
    const { journal } = this.#deps;
    if (step.append) return await this.#appendIdle(step.reason, []);
    return released(await journal.release({ kind: "idle", why: step.reason }));
  }

  async #appendIdle(reason: IdleReason, before: NewSessionEvent[]): Promise<RunEnd | undefined> {
    const { journal, rng, clock, metrics } = this.#deps;
    const idle = newEvent(rng, "session.status_idle", { stop_reason: reason });
    const result = await journal.append([...before, idle], {
      onlyIfTail: true,
      release: { kind: "idle", why: reason },
    });
    if (result.status === "more") return undefined;
    metrics.turnDuration.observe(
      { outcome: reason },
      (clock.monotonic() - this.#turnStarted) / 1000,
    );
    return "released";
  }

  /** Settles what is open, so that the log of an ended session has a result for each call. */
  async #terminate(reason: "stop" | "deadline"): Promise<RunEnd | undefined> {
    const { journal, rng } = this.#deps;
    if (pendingCalls(journal.state).length > 0) {
      await this.#runTools();
      return undefined;
    }
    const open = journal.state.openRequest;
    const events: NewSessionEvent[] = [
      ...(open === undefined
        ? []
        : [newEvent(rng, "model.request_abandoned", { req: open.req, reason: "stopped" })]),
      newEvent(rng, "session.terminated", { reason }),
    ];
    await journal.append(events, {
      durability: "committed",
      release: { kind: "terminated", why: reason },
    });
    return "released";
  }

  async #handOver(): Promise<RunEnd> {
    await this.#deps.journal.release({ kind: "requeue" });
    return "handed_over";
  }
}

function released(result: "released" | "more"): RunEnd | undefined {
  return result === "released" ? "released" : undefined;
}
