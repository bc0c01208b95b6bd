import { type ExecuteResponse, inputHash } from "../protocol/sandbox-api.ts";
import { exchangeFailure, type SandboxClient } from "../protocol/sandbox-client.ts";
import { BASH_DEFAULT_TIMEOUT_MS } from "../protocol/sandbox-tools.ts";
import { withDeadline } from "../runtime/abort.ts";
import { AppError, codeOf, describeError, hasCode } from "../runtime/errors.ts";
import type { EdgeLocator } from "./edge-address.ts";
import * as texts from "./outcome-texts.ts";
import { type CallOutcome, newEvent, type RunContext } from "./run-context.ts";
import { toolText } from "./safe-text.ts";
import { SandboxRepositories } from "./sandbox-repositories.ts";
import { type LiveSandbox, placeOf, type SandboxRecord, type ToolCall } from "./session-state.ts";
import type { SessionTokens } from "./tokens.ts";

/** The one hand of a session's template. */
export const SANDBOX_HAND = "sandbox";

/** Beyond the template's start deadline, for the operator's answer to arrive. */
const START_SLACK_MS = 30_000;
/**
 * Failed connects for this long mean that the sandbox is gone
 * (docs/design/sandbox-pod.md#lost-and-released).
 */
const UNREACHABLE_MS = 10_000;
/** Without a token, or with a daemon too busy for the call, the sandbox itself is well: it is waited for. */
const REFUSED_MS = 120_000;
/** Until a call is tried again: this after the first failure, twice as long after each further one. */
const RETRY_MS = 300;
const MAX_RETRY_MS = 3000;
const CANCEL_DEADLINE_MS = 10_000;
/** File tools end by themselves long before; a daemon that never answers must not hold the turn. */
const FILE_TOOL_DEADLINE_MS = 300_000;
/** Beyond the command's own limit, which the daemon enforces. */
const BASH_SLACK_MS = 60_000;
const MAX_REFUSALS = 3;

/** `left`: the call goes on in its sandbox and another worker will ask for it by id. `settled`: the log has its result. */
export type HandAnswer = CallOutcome | "left" | "settled";

export interface SandboxHandsDeps extends RunContext {
  tokens: SessionTokens;
  sandboxClient: (token: (address: string) => Promise<string>) => SandboxClient;
  edge: EdgeLocator | undefined;
}

/**
 * Runs tool calls in the session's sandboxes: asks for one when none is there, waits for it, sends
 * the call under the model's id, and says what became of it when the sandbox is lost on the way. A
 * call is sent to one generation only (docs/design/session-log.md#tool-calls).
 */
export class SandboxHands {
  readonly #deps: SandboxHandsDeps;
  readonly #client: SandboxClient;
  readonly #repositories: SandboxRepositories;
  readonly #sandboxOf = new Map<string, string>();
  /** Events that must be appended once, however many calls want them. */
  readonly #once = new Map<string, Promise<unknown>>();
  /** Calls that may have reached a daemon. */
  readonly #sent = new Set<string>();
  /** Start of the unbroken run of failed exchanges, by sandbox; ms of the monotonic clock. */
  readonly #downSince = new Map<string, number>();
  /** When a request for a sandbox was first seen, by hand and generation. */
  readonly #startingSince = new Map<string, number>();
  /** Start of the wait for a call that could not be sent, by call. */
  readonly #waitingSince = new Map<string, number>();
  /** When a daemon first said that it has the call, by call. */
  readonly #takenSince = new Map<string, number>();
  readonly #finished = new Map<string, string[]>();

  constructor(deps: SandboxHandsDeps) {
    this.#deps = deps;
    this.#client = deps.sandboxClient((address) =>
      deps.tokens.execute(this.#sandboxOf.get(address) ?? ""),
    );
    this.#repositories = new SandboxRepositories({ ...deps, client: this.#client });
  }

  /** `cancel`: end the call. `leave`: end the waiting; the call goes on. */
  async call(
    call: ToolCall,
    until: { cancel: AbortSignal; leave: AbortSignal },
  ): Promise<HandAnswer> {
    const { cancel } = until;
    const hand = call.intent.hand ?? SANDBOX_HAND;
    let refusals = 0;
    for (;;) {
      const { journal, signals } = this.#deps;
      signals.dead.throwIfAborted();
      if (call.result !== undefined) return "settled";
      const place = placeOf(journal.state, hand, call.seq);
      if (place.kind === "failed") {
        return texts.environmentFailed(
          place.record.ended?.reason ?? "",
          place.record.ended?.message ?? "",
        );
      }
      if (place.kind === "gone") {
        return this.#mayHaveRun(call) ? texts.environmentLost : texts.neverStarted;
      }
      if (place.kind === "live") {
        const answer =
          (await this.#prepare(call, place.record, until, refusals)) ??
          (await this.#execute(call, place.record, until, refusals));
        if (answer !== "again") return answer;
        refusals += 1;
        continue;
      }
      if (cancel.aborted) return texts.interrupted;
      if (until.leave.aborted) return "left";
      if (place.kind === "none") await this.#request(hand, place.nextGeneration);
      else await this.#awaitStart(place.record, until);
    }
  }

  /** Results so far are committed: the daemons may forget them. Failing costs their disk only. */
  acknowledge(): void {
    for (const [address, ids] of this.#finished) {
      this.#client.ack(address, ids, this.#deps.signals.dead).catch((error: unknown) => {
        this.#deps.logger.debug({ err: describeError(error) }, "acknowledging results failed");
      });
    }
    this.#finished.clear();
  }

  async #request(hand: string, generation: number): Promise<void> {
    const template = this.#deps.snapshot.template?.name ?? "";
    await this.#appendOnce(`requested:${hand}:${generation}`, () =>
      newEvent(this.#deps.rng, "sandbox.requested", { hand, generation, template }),
    );
  }

  async #release(record: SandboxRecord, reason: string): Promise<void> {
    const { hand, generation } = record;
    await this.#appendOnce(`released:${hand}:${generation}`, () =>
      newEvent(this.#deps.rng, "sandbox.released", { hand, generation, reason }),
    );
  }

  async #appendOnce(key: string, event: () => ReturnType<typeof newEvent>): Promise<void> {
    const running = this.#once.get(key) ?? this.#deps.journal.append([event()]);
    this.#once.set(key, running);
    await running;
  }

  async #awaitStart(
    record: SandboxRecord,
    until: { cancel: AbortSignal; leave: AbortSignal },
  ): Promise<void> {
    const { clock, journal, snapshot, signals } = this.#deps;
    const allowed = (snapshot.template?.startDeadlineSeconds ?? 0) * 1000 + START_SLACK_MS;
    const late = new AbortController();
    const key = `${record.hand}:${record.generation}`;
    // By this holder's own clock: the log's may differ by more than a sandbox takes to start.
    const since = this.#startingSince.get(key) ?? clock.monotonic();
    this.#startingSince.set(key, since);
    const stopTimer = clock.timer(since + allowed - clock.monotonic(), () => late.abort());
    try {
      await journal.changed(
        AbortSignal.any([until.cancel, until.leave, signals.dead, late.signal]),
      );
      if (late.signal.aborted && record.provisioned === undefined && record.ended === undefined) {
        await this.#release(record, "StartDeadlineExceeded");
      } else if (record.provisioned !== undefined) {
        this.#observeStart(record);
      }
    } finally {
      stopTimer();
    }
  }

  #observeStart(record: SandboxRecord): void {
    const key = `started:${record.hand}:${record.generation}`;
    if (this.#once.has(key)) return;
    this.#once.set(key, Promise.resolve());
    const seconds = Math.max(0, this.#deps.clock.now() - record.requestedAt) / 1000;
    this.#deps.metrics.sandboxWait.observe({ hit: "cold" }, seconds);
  }

  /** Undefined: the sandbox is ready for the call. Nothing of the call has been sent. */
  async #prepare(
    call: ToolCall,
    record: LiveSandbox,
    { cancel, leave }: { cancel: AbortSignal; leave: AbortSignal },
    refusals: number,
  ): Promise<HandAnswer | "again" | undefined> {
    const { signals } = this.#deps;
    const { address, sandboxId } = record.provisioned;
    this.#sandboxOf.set(address, sandboxId);
    if (cancel.aborted) return undefined;
    const lost = this.#watch(call, record);
    const stop = AbortSignal.any([cancel, leave, signals.dead, lost.signal]);
    try {
      await this.#repositories.prepare(record, stop);
      return undefined;
    } catch (error) {
      signals.dead.throwIfAborted();
      if (lost.signal.aborted) return "again";
      if (cancel.aborted) return undefined;
      if (leave.aborted) return "left";
      return await this.#afterFailure(error, call, record, refusals, stop);
    } finally {
      lost.close();
    }
  }

  async #execute(
    call: ToolCall,
    record: LiveSandbox,
    { cancel, leave }: { cancel: AbortSignal; leave: AbortSignal },
    refusals: number,
  ): Promise<HandAnswer | "again"> {
    const { clock, signals } = this.#deps;
    const { address, sandboxId } = record.provisioned;
    if (cancel.aborted) return await this.#cancel(call, address, texts.interrupted);
    const late = new AbortController();
    // The time of a call counts from when it was taken: a daemon cannot begin it again by answering in turns.
    const spent = clock.monotonic() - (this.#takenSince.get(call.intent.id) ?? clock.monotonic());
    const stopTimer = clock.timer(deadlineOf(call) - spent, () => late.abort());
    const lost = this.#watch(call, record);
    const stop = AbortSignal.any([cancel, leave, signals.dead, lost.signal, late.signal]);
    try {
      const { id, name, input, inputHash: hash } = call.intent;
      const request = {
        id,
        name,
        input,
        inputHash: hash || inputHash(name, input),
        epoch: this.#deps.lease.epoch,
      };
      const wasSent = this.#sent.has(id);
      this.#sent.add(id);
      const response = await this.#client
        .execute(address, request, stop, () => {
          this.#downSince.delete(sandboxId);
          this.#waitingSince.delete(id);
          if (!this.#takenSince.has(id)) this.#takenSince.set(id, clock.monotonic());
        })
        .catch((error: unknown) => {
          if (!wasSent && isUnsent(error)) this.#sent.delete(id);
          throw error;
        });
      this.#finished.set(address, [...(this.#finished.get(address) ?? []), id]);
      return outcomeOf(response, this.#repositories.takeNotices(record));
    } catch (error) {
      signals.dead.throwIfAborted();
      if (lost.signal.aborted) return "again";
      if (cancel.aborted) return await this.#cancel(call, address, texts.interrupted);
      if (late.signal.aborted) return await this.#cancel(call, address, texts.outcomeUnknown);
      if (leave.aborted) return "left";
      return await this.#afterFailure(error, call, record, refusals, stop);
    } finally {
      stopTimer();
      lost.close();
    }
  }

  /** Aborts when the call's sandbox is gone or the call got its result in another way. */
  #watch(call: ToolCall, record: LiveSandbox): { signal: AbortSignal; close: () => void } {
    const controller = new AbortController();
    const check = () => {
      const place = placeOf(this.#deps.journal.state, record.hand, call.seq);
      const same =
        place.kind === "live" && place.record.provisioned.address === record.provisioned.address;
      if (!same || call.result !== undefined) controller.abort();
    };
    const close = this.#deps.journal.onChange(check);
    return { signal: controller.signal, close };
  }

  async #afterFailure(
    failure: unknown,
    call: ToolCall,
    record: LiveSandbox,
    refusals: number,
    stop: AbortSignal,
  ): Promise<HandAnswer | "again"> {
    const { journal, tokens, logger } = this.#deps;
    const { sandboxId } = record.provisioned;
    logger.debug(
      { toolCallId: call.intent.id, sandbox: sandboxId, err: describeError(failure) },
      "asking the sandbox failed",
    );
    const exchange = exchangeFailure(failure);
    if (exchange === "no_connection" || exchange === "silent") {
      return await this.#afterSilence(record, refusals, stop);
    }
    // Only an unbroken run of silence says that nobody is there.
    this.#downSince.delete(sandboxId);
    if (exchange === "not_understood") {
      return texts.notUnderstood(describeError(failure), this.#mayHaveRun(call));
    }
    switch (codeOf(failure) ?? "") {
      case "UNAVAILABLE":
      case "TIMEOUT":
        return await this.#waitToSend(call, failure, refusals, stop);
      case "SANDBOX_BOUND":
        await this.#release(record, "bound_to_another_session");
        return "again";
      case "UNAUTHENTICATED":
      case "FORBIDDEN":
      // Whether the lease is lost is for the log to say: a sandbox that claims it may lie.
      case "SANDBOX_STALE_EPOCH":
        tokens.invalidate();
        if (refusals >= MAX_REFUSALS) return this.#refused(call, failure);
        await this.#pause(refusals, stop);
        return "again";
      case "OUTCOME_UNKNOWN":
        await journal.refresh();
        return call.result === undefined ? texts.outcomeUnknown : "settled";
      case "SANDBOX_INPUT_CHANGED":
      case "NOT_FOUND":
      case "INPUT_INVALID":
      case "INPUT_TOO_LARGE":
        return texts.knownError(`The environment refused the call: ${describeError(failure)}`);
      default:
        if (exchange !== "no_token" || hasCode(failure, "SESSION_LEASE_LOST")) throw failure;
        return await this.#waitToSend(call, failure, refusals, stop);
    }
  }

  /** Nobody answers at the sandbox's address: after a while of nothing else the sandbox is gone. */
  async #afterSilence(record: LiveSandbox, refusals: number, stop: AbortSignal): Promise<"again"> {
    const { clock } = this.#deps;
    const { sandboxId } = record.provisioned;
    const since = this.#downSince.get(sandboxId) ?? clock.monotonic();
    this.#downSince.set(sandboxId, since);
    if (clock.monotonic() - since >= UNREACHABLE_MS) await this.#release(record, "Unreachable");
    else await this.#pause(refusals, stop);
    return "again";
  }

  /** The call could not be given to a sandbox that is well: that says nothing against the sandbox. */
  async #waitToSend(
    call: ToolCall,
    failure: unknown,
    refusals: number,
    stop: AbortSignal,
  ): Promise<CallOutcome | "again"> {
    const { clock } = this.#deps;
    const { id } = call.intent;
    const since = this.#waitingSince.get(id) ?? clock.monotonic();
    this.#waitingSince.set(id, since);
    if (clock.monotonic() - since >= REFUSED_MS) return this.#refused(call, failure);
    await this.#pause(refusals, stop);
    return "again";
  }

  #refused(call: ToolCall, failure: unknown): CallOutcome {
    return this.#mayHaveRun(call) ? texts.outcomeUnknown : texts.neverSent(describeError(failure));
  }

  /** What an earlier holder did with a call is not known here. */
  #mayHaveRun({ seq, intent }: ToolCall): boolean {
    return !this.#deps.journal.isOwn(seq) || this.#sent.has(intent.id);
  }

  async #pause(refusals: number, stop: AbortSignal): Promise<void> {
    const ms = Math.min(MAX_RETRY_MS, RETRY_MS * 2 ** refusals);
    await this.#deps.clock.sleep(ms, stop).catch(() => {});
  }

  async #cancel(call: ToolCall, address: string, otherwise: CallOutcome): Promise<CallOutcome> {
    const { clock, signals } = this.#deps;
    try {
      const response = await withDeadline(
        clock,
        CANCEL_DEADLINE_MS,
        "cancelling a tool call",
        (signal) =>
          this.#client.cancel(address, call.intent.id, AbortSignal.any([signal, signals.dead])),
      );
      if (response.result === undefined) return texts.interruptedUnknown;
      const { outcome, content } = response.result;
      if (outcome !== "cancelled") return outcomeOf(response);
      const text = content.trim() === "" ? otherwise.content : `${otherwise.content}\n\n${content}`;
      return { ...otherwise, outcome: "cancelled", content: toolText(text) };
    } catch (error) {
      signals.dead.throwIfAborted();
      if (hasCode(error, "SESSION_LEASE_LOST")) throw error;
      return otherwise === texts.interrupted ? texts.interruptedUnknown : otherwise;
    }
  }
}

/** `notices` are lines of ours that the model reads first. */
function outcomeOf(response: ExecuteResponse, notices = ""): CallOutcome {
  const { result } = response;
  if (result === undefined) return texts.outcomeUnknown;
  const blank = result.outcome === "unknown" && result.content.trim() === "";
  const content = blank ? texts.outcomeUnknown.content : toolText(result.content);
  return {
    content: notices === "" ? content : toolText(`${notices}\n${content}`),
    isError: result.is_error,
    outcome: result.outcome,
  };
}

function deadlineOf(call: ToolCall): number {
  if (call.intent.name !== "bash") return FILE_TOOL_DEADLINE_MS;
  const limit = call.intent.input["timeout_ms"];
  return (typeof limit === "number" ? limit : BASH_DEFAULT_TIMEOUT_MS) + BASH_SLACK_MS;
}

function isUnsent(error: unknown): boolean {
  return error instanceof AppError && error.details["sent"] === false;
}
