import type { ExecuteRequest, ExecuteResult } from "../protocol/sandbox-api.ts";
import type { Clock } from "../runtime/clock.ts";
import { AppError, describeError } from "../runtime/errors.ts";
import type { Logger } from "../runtime/logger.ts";
import type { JournalRecord, JournalState } from "./journal-record.ts";
import { type SandboxMetrics, toolLabel } from "./metrics.ts";
import type { ToolRunner } from "./runner-link.ts";
import type { RunResult } from "./runner-protocol.ts";
import type { TailStore } from "./tail-store.ts";

/** More calls than this at once are a caller gone wrong, and would eat the memory of the sandbox. */
const MAX_CALLS_AT_ONCE = 64;

const LOST_TEXT =
  "The sandbox restarted while this call was running, perhaps because it ran out of memory. It may have had none, part or all of its effect. Check before repeating.";
const STOPPED_TEXT =
  "the sandbox was stopped while this call was running. It may have had none, part or all of its effect. Check before repeating.";
const CANCELLED_TEXT = "cancelled";
const NEVER_STARTED: ExecuteResult = {
  content: "(cancelled before it started; nothing was run)",
  is_error: true,
  outcome: "cancelled",
};

/**
 * Calls of one queue run one after the other, in the order they came, so that two edits of one file do
 * not overwrite each other; all others run side by side.
 */
const QUEUES: Readonly<Record<string, string>> = { bash: "shell", write: "files", edit: "files" };

export interface ExecutorOptions {
  runner: ToolRunner;
  journal: { readonly state: JournalState; append(record: JournalRecord): Promise<void> };
  tails: Pick<TailStore, "keep" | "of" | "forget">;
  clock: Clock;
  logger: Logger;
  metrics: SandboxMetrics;
}

/** A call this daemon knows: running, or over. */
export interface Call {
  readonly id: string;
  readonly name: string;
  /** Undefined when it was cancelled before it arrived. */
  readonly inputHash: string | undefined;
  /** Undefined while it runs. */
  result: ExecuteResult | undefined;
  /** Resolves when it is over; rejects UNAVAILABLE when it could not be recorded and did not run. */
  readonly done: Promise<ExecuteResult>;
  readonly stop: AbortController;
}

/**
 * Runs each tool call once (docs/design/session-log.md#tool-calls): `started` is on the disk before
 * the tool runs and the result before anybody hears of it; a repeated id joins the running call or
 * gets the recorded result.
 */
export class Executor {
  readonly #options: ExecutorOptions;
  readonly #calls = new Map<string, Call>();
  /** The last call of each queue. */
  readonly #queues = new Map<string, Promise<unknown>>();
  #running = 0;
  #closing = false;
  #journalError: string | undefined;

  constructor(options: ExecutorOptions) {
    this.#options = options;
  }

  /** Undefined when calls are taken, else why not. */
  get problem(): string | undefined {
    return this.#ownProblem ?? this.#options.runner.problem;
  }

  /** A runner that is away may come back, so it is no reason to refuse a call at once. */
  get #ownProblem(): string | undefined {
    return this.#closing ? "the sandbox is stopping" : this.#journalError;
  }

  /** Takes over what an earlier daemon recorded; what it left running ends as `unknown`. Call once, first. */
  async recover(): Promise<void> {
    const { journal, tails, logger } = this.#options;
    for (const recorded of journal.state.calls.values()) {
      let result = recorded.result;
      if (result === undefined) {
        result = this.#lost(recorded.id);
        await journal.append({ t: "done", ...keyOf(recorded), result });
        logger.warn({ toolCallId: recorded.id }, "call lost by a restart");
        this.#count(recorded.name, result);
      }
      tails.forget(recorded.id);
      this.#calls.set(recorded.id, settledCall(recorded, result));
    }
  }

  find(id: string): Call | undefined {
    return this.#calls.get(id);
  }

  /**
   * The call for this request: the one already known, or a new one that begins now.
   * Throws SANDBOX_INPUT_CHANGED, OUTCOME_UNKNOWN (acknowledged before), UNAVAILABLE; `mayStart`
   * throws when the caller may not start a call the daemon does not know.
   */
  execute(request: ExecuteRequest, mayStart: () => void): Call {
    const known = this.#calls.get(request.id);
    if (known !== undefined) {
      if (known.inputHash !== undefined && known.inputHash !== request.inputHash) {
        throw new AppError(
          "SANDBOX_INPUT_CHANGED",
          `call ${request.id} was sent before with another name or input; use a new id`,
        );
      }
      return known;
    }
    if (this.#options.journal.state.acked.has(request.id)) {
      throw new AppError(
        "OUTCOME_UNKNOWN",
        `call ${request.id} has run and its result was acknowledged; read it in the session log`,
      );
    }
    mayStart();
    this.#refuseWhenUnable();
    return this.#begin(request);
  }

  /** Stops a call and returns how it ended; an id not seen yet is recorded and will never run. */
  async cancel(id: string): Promise<ExecuteResult> {
    const call = this.#calls.get(id);
    if (call !== undefined) {
      call.stop.abort(new Error(CANCELLED_TEXT));
      return await call.done;
    }
    this.#refuseWhenUnable();
    const key = { id, name: "", inputHash: undefined };
    this.#calls.set(id, settledCall(key, NEVER_STARTED));
    await this.#append({ t: "done", id, name: "", result: NEVER_STARTED });
    return NEVER_STARTED;
  }

  /** The log holds these results; they are forgotten here. Calls still running are left alone. */
  async ack(ids: readonly string[]): Promise<void> {
    const over = ids.filter((id) => this.#calls.get(id)?.result !== undefined);
    if (over.length === 0) return;
    await this.#append({ t: "acked", ids: over });
    for (const id of over) this.#calls.delete(id);
  }

  /** Takes no more calls, kills what runs, and records it as stopped. */
  async close(): Promise<void> {
    this.#closing = true;
    const running = [...this.#calls.values()].filter((call) => call.result === undefined);
    for (const call of running) call.stop.abort(new Error(STOPPED_TEXT));
    await Promise.allSettled(running.map((call) => call.done));
  }

  #refuseWhenUnable(): void {
    const problem =
      this.#ownProblem ??
      (this.#running >= MAX_CALLS_AT_ONCE ? `${MAX_CALLS_AT_ONCE} calls are running` : undefined);
    if (problem !== undefined) {
      throw new AppError("UNAVAILABLE", `no call is taken: ${problem}`, { retryable: true });
    }
  }

  #begin(request: ExecuteRequest): Call {
    const { id, name, inputHash } = request;
    const stop = new AbortController();
    const done = this.#inTurn(name, () => this.#run(request, stop.signal));
    const call: Call = { id, name, inputHash, result: undefined, done, stop };
    this.#calls.set(id, call);
    this.#running += 1;
    this.#options.metrics.running.set(this.#running);
    void done
      .then(
        (result) => {
          call.result = result;
        },
        // It did not run: the same id may be sent again.
        () => this.#calls.delete(id),
      )
      .then(() => {
        this.#running -= 1;
        this.#options.metrics.running.set(this.#running);
      });
    return call;
  }

  /** Runs `work` at once, or after the calls that came before it in its queue. */
  #inTurn<T>(name: string, work: () => Promise<T>): Promise<T> {
    const queue = Object.hasOwn(QUEUES, name) ? QUEUES[name] : undefined;
    if (queue === undefined) return work();
    const turn = (this.#queues.get(queue) ?? Promise.resolve()).then(work, work);
    this.#queues.set(queue, turn);
    return turn;
  }

  async #run(request: ExecuteRequest, signal: AbortSignal): Promise<ExecuteResult> {
    const { tails, logger, clock, metrics, runner } = this.#options;
    const { id, name, inputHash } = request;
    let result: ExecuteResult;
    // A runner that was lost comes back: what has not started may wait for it.
    if (!signal.aborted) await runner.ready(signal);
    if (signal.aborted) {
      // It waited for its turn: nothing has run.
      if (this.#closing) throw new AppError("UNAVAILABLE", "the sandbox is stopping");
      result = NEVER_STARTED;
    } else {
      await this.#append({ t: "started", id, name, inputHash });
      const startedMs = clock.monotonic();
      const end = await runner.run(request, signal, (tail) => tails.keep(id, tail));
      result = end === "lost" ? this.#lost(id) : this.#resultOf(end);
      metrics.callSeconds.observe(
        { tool: toolLabel(name) },
        (clock.monotonic() - startedMs) / 1000,
      );
    }
    // A result that cannot be written is still handed out: the log is what must hold it.
    await this.#append({ t: "done", id, name, inputHash, result }).catch(() => {});
    tails.forget(id);
    this.#count(name, result);
    logger.info({ toolCallId: id, outcome: result.outcome }, "call ended");
    return result;
  }

  #resultOf({ content, is_error, aborted, outputBytes }: RunResult): ExecuteResult {
    this.#options.metrics.outputBytes.inc(outputBytes);
    const stopped = this.#closing ? "unknown" : "cancelled";
    return { content, is_error, outcome: aborted ? stopped : "known" };
  }

  #lost(id: string): ExecuteResult {
    const tail = this.#options.tails.of(id);
    const shown = tail === "" ? "" : `\nThe last it printed:\n${tail}`;
    return { content: `${LOST_TEXT}${shown}`, is_error: true, outcome: "unknown" };
  }

  async #append(record: JournalRecord): Promise<void> {
    try {
      await this.#options.journal.append(record);
      this.#journalError = undefined;
    } catch (cause) {
      this.#journalError = "the journal cannot be written";
      this.#options.logger.error({ err: describeError(cause) }, "journal not written");
      throw new AppError("UNAVAILABLE", this.#journalError, { cause, retryable: true });
    }
  }

  #count(name: string, result: ExecuteResult): void {
    const known = result.is_error ? "error" : "ok";
    const outcome = result.outcome === "known" ? known : result.outcome;
    this.#options.metrics.calls.inc({ tool: toolLabel(name), outcome });
  }
}

interface CallKey {
  id: string;
  name: string;
  inputHash: string | undefined;
}

function keyOf({ id, name, inputHash }: CallKey) {
  return inputHash === undefined ? { id, name } : { id, name, inputHash };
}

function settledCall(key: CallKey, result: ExecuteResult): Call {
  const { id, name, inputHash } = key;
  const done = Promise.resolve(result);
  return { id, name, inputHash, result, done, stop: new AbortController() };
}
