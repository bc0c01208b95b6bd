import type { McpHands } from "./mcp-hands.ts";
import { toolLabel } from "./metrics.ts";
import { type CallDuty, dutyOf, pendingCalls } from "./next-step.ts";
import * as texts from "./outcome-texts.ts";
import { type CallOutcome, newEvent, type RunContext, resultEvent } from "./run-context.ts";
import type { HandAnswer, SandboxHands } from "./sandbox-hands.ts";
import { readSessionEvents } from "./session-events-tool.ts";
import type { ToolCall } from "./session-state.ts";

export interface ToolRoundDeps extends RunContext {
  sandbox: Pick<SandboxHands, "call">;
  mcp: McpHands;
}

/** Between two looks at a lease that has not been renewed for long. */
const STALE_POLL_MS = 50;

/**
 * Works on every pending call that somebody here can move, all at once, until none is left. Each
 * result is appended as it arrives. Ends early, with calls still running in their sandboxes, when
 * the session is to be handed over or suspended.
 */
export class ToolRound {
  readonly #deps: ToolRoundDeps;
  readonly #inFlight = new Map<string, Promise<void>>();
  readonly #left = new Set<string>();
  readonly #stop = new AbortController();
  readonly #suspended = new AbortController();
  readonly #leave: AbortSignal;

  constructor(deps: ToolRoundDeps) {
    this.#deps = deps;
    this.#leave = AbortSignal.any([deps.signals.leave, this.#suspended.signal]);
  }

  async run(): Promise<void> {
    const { journal, signals } = this.#deps;
    const stopWatching = journal.onChange(() => {
      if (journal.state.suspended) this.#suspended.abort();
    });
    try {
      await this.#proveCommitted();
      for (;;) {
        signals.dead.throwIfAborted();
        for (const [call, duty] of this.#movable()) {
          this.#inFlight.set(call.intent.id, this.#work(call, duty));
        }
        if (this.#inFlight.size === 0) return;
        await Promise.race([...this.#inFlight.values(), journal.changed(signals.dead)]);
      }
    } finally {
      stopWatching();
      this.#stop.abort();
      await Promise.allSettled(this.#inFlight.values());
    }
  }

  /** Intents that were only read must be known to be committed before anything acts on them. */
  async #proveCommitted(): Promise<void> {
    const { journal } = this.#deps;
    const foreign = pendingCalls(journal.state).some((call) => !journal.isOwn(call.seq));
    if (foreign) await journal.barrier();
  }

  #movable(): [ToolCall, CallDuty][] {
    const { state } = this.#deps.journal;
    const shells = new Set<string>();
    return pendingCalls(state).flatMap((call): [ToolCall, CallDuty][] => {
      const { id } = call.intent;
      const duty = dutyOf(state, call);
      const busy = duty === "run" && isShell(call) && shells.has(call.intent.hand ?? "");
      if (duty === "run" && isShell(call)) shells.add(call.intent.hand ?? "");
      // What an earlier holder has sent is settled even on the way out.
      const held = this.#leave.aborted && duty === "run" && call.started === undefined;
      if (busy || held || duty === "wait" || this.#inFlight.has(id) || this.#left.has(id))
        return [];
      return [[call, duty]];
    });
  }

  async #work(call: ToolCall, duty: CallDuty): Promise<void> {
    const { id, target, name } = call.intent;
    const { clock, journal, metrics, rng, logger } = this.#deps;
    const tool = toolLabel(target, name);
    const started = clock.monotonic();
    try {
      const mayBegin = duty !== "run" || (await this.#leaseIsFresh());
      const answer = mayBegin ? await this.#answer(call, duty) : "left";
      if (answer === "left") this.#left.add(id);
      if (answer === "left" || answer === "settled") return;
      await journal.append([resultEvent(rng, id, answer)]);
      const outcome = answer.outcome === "known" && answer.isError ? "error" : answer.outcome;
      metrics.toolCalls.inc({ tool, outcome });
      metrics.toolDuration.observe({ tool }, (clock.monotonic() - started) / 1000);
      logger.debug({ toolCallId: id, tool, outcome }, "tool call ended");
    } finally {
      this.#inFlight.delete(id);
    }
  }

  /** Waits, before an effect, for a lease that is surely held; false when the session is to be left. */
  async #leaseIsFresh(): Promise<boolean> {
    const { clock, lease, signals } = this.#deps;
    if (lease.fresh()) return true;
    const ends = AbortSignal.any([signals.dead, signals.hard, this.#leave, this.#stop.signal]);
    while (!lease.fresh()) {
      if (ends.aborted) return false;
      await clock.sleep(STALE_POLL_MS, ends).catch(() => {});
    }
    return true;
  }

  async #answer(call: ToolCall, duty: CallDuty): Promise<HandAnswer> {
    const { target } = call.intent;
    if (duty === "deny") return texts.denied(call.confirmation?.message);
    if (call.started !== undefined) {
      return duty === "cancel" ? texts.interruptedUnknown : texts.outcomeUnknown;
    }
    if (target === "sandbox" && mayHaveStarted(call)) return await this.#inSandbox(call);
    if (duty === "cancel") return texts.interrupted;
    if (target === "mcp") return await this.#onServer(call);
    if (target === "harness") return await this.#here(call);
    return texts.knownError(`There is nobody to run "${call.intent.name}".`);
  }

  async #inSandbox(call: ToolCall): Promise<HandAnswer> {
    const cancel = this.#cancelSignal(call);
    try {
      return await this.#deps.sandbox.call(call, {
        cancel: cancel.signal,
        leave: AbortSignal.any([this.#leave, this.#stop.signal]),
      });
    } finally {
      cancel.close();
    }
  }

  async #onServer(call: ToolCall): Promise<CallOutcome> {
    const { hand, name, input, id, class: kind } = call.intent;
    const { journal, rng, signals, mcp } = this.#deps;
    const cancel = this.#cancelSignal(call);
    const signal = AbortSignal.any([cancel.signal, signals.hard, signals.dead, this.#stop.signal]);
    try {
      if (kind !== "read_only") {
        await journal.append([newEvent(rng, "tool.started", { id })], { durability: "committed" });
        if (cancel.signal.aborted) return texts.interrupted;
      }
      return await mcp.callTool({
        server: hand ?? "",
        tool: name,
        input,
        toolUseId: id,
        repeatable: kind === "read_only",
        signal,
      });
    } catch (error) {
      signals.dead.throwIfAborted();
      if (cancel.signal.aborted) return texts.interruptedUnknown;
      // Of a round that failed elsewhere too: what was sent is never sent again.
      if (signals.hard.aborted || this.#stop.signal.aborted) return texts.outcomeUnknown;
      throw error;
    } finally {
      cancel.close();
    }
  }

  async #here(call: ToolCall): Promise<CallOutcome> {
    const { journal } = this.#deps;
    const read = await readSessionEvents((query) => journal.history(query), call.intent.input);
    return { ...read, outcome: "known" };
  }

  /** Aborts when an interrupt or a stop is in the log. */
  #cancelSignal(call: ToolCall): { signal: AbortSignal; close: () => void } {
    const { journal } = this.#deps;
    const controller = new AbortController();
    const check = () => {
      if (dutyOf(journal.state, call) === "cancel") controller.abort();
    };
    const close = journal.onChange(check);
    check();
    return { signal: controller.signal, close };
  }
}

/** A sandbox has one shell: its commands run one after the other, in the order the model gave them. */
function isShell({ intent }: ToolCall): boolean {
  return intent.target === "sandbox" && intent.name === "bash";
}

/** A call that still waits for permission has certainly not been sent anywhere. */
function mayHaveStarted(call: ToolCall): boolean {
  return call.intent.permission === "allow" || call.confirmation?.allow === true;
}
