import { describe, expect, it } from "@jest/globals";
import * as fc from "fast-check";
import { EventLog } from "../../test/builders/event-log.ts";
import type { SessionEvent } from "../protocol/session-event.ts";
import { planCompaction } from "./compaction.ts";
import { dutyOf, nextStep, pendingCalls } from "./next-step.ts";
import {
  applyEvent,
  emptyState,
  placeOf,
  type SessionState,
  sandboxesAt,
  stateAfter,
} from "./session-state.ts";
import { buildTranscript } from "./transcript.ts";

function fold(events: readonly SessionEvent[], from = emptyState()): SessionState {
  for (const event of events) applyEvent(from, event);
  return from;
}

const window = { contextTokens: 3000, maxOutputTokens: 500 };
const planFor = (events: readonly SessionEvent[], upto: number, forced: boolean) =>
  planCompaction({ events, upto, fixedTokens: 10, window, forced });

/** A harness in small: does what `nextStep` says, with answers and accidents from a list of numbers. */
class LogMaker {
  readonly log = new EventLog();
  readonly state = emptyState();
  #calls = 0;
  #folded = 0;

  constructor() {
    this.log.add("session.created", { agent: "a", agentRevision: "r" }).say("task");
    this.#fold();
  }

  play(choice: number): void {
    const kind = choice % 23;
    if (kind >= 12) this.#work(choice);
    else this.#accident(kind, choice);
    this.#fold();
  }

  #fold(): void {
    for (const event of this.log.events.slice(this.#folded)) applyEvent(this.state, event);
    this.#folded = this.log.seq;
  }

  /** What comes from outside, at any moment. */
  #accident(kind: number, choice: number): void {
    const { log, state } = this;
    const call = [...state.calls.values()].findLast(({ result }) => result === undefined);
    const generation = state.sandboxes.get("sandbox")?.at(-1)?.generation ?? 0;
    if (kind === 0) log.say(`late ${choice}`);
    if (kind === 1) log.add("user.interrupt", {});
    if (kind === 2) log.add("session.suspend_requested", {});
    if (kind === 3 || kind === 4) log.add("session.resume_requested", {});
    if (kind === 5)
      log.add("sandbox.requested", { hand: "sandbox", generation: generation + 1, template: "t" });
    if (kind === 6 || kind === 7)
      log.add("sandbox.provisioned", {
        hand: "sandbox",
        generation,
        sandboxId: `s${generation}`,
        address: `a:${choice}`,
      });
    if (kind === 8 && choice % 3 === 0)
      log.add("sandbox.lost", { hand: "sandbox", generation, reason: "PodDeleted", message: "m" });
    if (kind === 9 && call !== undefined)
      log.add("user.tool_confirmation", {
        tool_use_id: call.eventId,
        result: choice % 2 === 0 ? "allow" : "deny",
      });
    if (kind === 10 && call !== undefined)
      log.add("user.custom_tool_result", {
        custom_tool_use_id: call.eventId,
        content: [{ type: "text", text: "c" }],
      });
    if (kind === 11) log.add("system.message", { content: [{ type: "text", text: "s" }] });
  }

  #work(choice: number): void {
    const { log, state } = this;
    const step = nextStep(state);
    if (step.kind === "abandon") log.abandon();
    if (step.kind === "idle" && step.append) log.idle(step.reason);
    if (step.kind === "tools") {
      for (const call of pendingCalls(state)) {
        if (dutyOf(state, call) !== "wait") log.result(call.intent.id, "x".repeat(choice % 900));
      }
    }
    if (step.kind === "request") this.#request(choice);
  }

  #request(choice: number): void {
    const { log, state } = this;
    const plan = planFor(state.events, state.seq, choice % 5 === 0);
    if (plan.kind === "compact") {
      const { to } = plan;
      log.add("context.compacted", {
        from: 1,
        to,
        summary: `of ${to}`,
        sandboxes: sandboxesAt(state, to),
      });
      return;
    }
    log.ask();
    if (choice % 7 === 0) log.say("while it answered");
    if (choice % 11 === 0) return;
    if (choice % 3 === 0) return void log.answer("y".repeat(choice % 500));
    const ids = Array.from({ length: 1 + (choice % 3) }, () => `t${(this.#calls += 1)}`);
    const target = choice % 4 === 0 ? "custom" : "sandbox";
    log.call(ids, { target, permission: choice % 9 === 0 ? "ask" : "allow" });
  }
}

/** All that a worker decides by. */
function decisions(state: SessionState) {
  return {
    step: nextStep(state),
    pending: pendingCalls(state).map((call) => [
      call.eventId,
      dutyOf(state, call),
      call.started,
      placeOf(state, "sandbox", call.seq),
    ]),
    place: placeOf(state, "sandbox", state.seq + 1),
    open: state.openRequest,
    seq: state.seq,
    stop: state.stop,
    isInterrupted: state.interruptSeq > state.attemptedUpto,
  };
}

/** What the next request would be, and whether history is replaced before it. */
function sent(events: readonly SessionEvent[], upto: number) {
  const plans = [true, false].map((forced) => planFor(events, upto, forced));
  return { messages: buildTranscript(events, upto), plans };
}

const text = (...values: unknown[]) => JSON.stringify(values);

const choices = fc.array(fc.integer({ min: 0, max: 5000 }), { minLength: 60, maxLength: 200 });

describe("a log with compactions", () => {
  it("is decided on alike from its end and from the whole of it", () => {
    let compared = 0;
    fc.assert(
      fc.property(choices, (list) => {
        const maker = new LogMaker();
        for (const choice of list) maker.play(choice);
        const { events } = maker.log;
        const last = events.findLast((event) => event.type === "context.compacted");
        if (last?.type !== "context.compacted") return;
        const fromEnd = stateAfter(last.data.to, last.data.sandboxes ?? []);
        const whole = emptyState();
        const never = emptyState();
        for (const event of events) {
          if (event.seq > last.data.to) applyEvent(fromEnd, event);
          applyEvent(whole, event);
          if (event.type === "context.compacted") never.seq = event.seq;
          else applyEvent(never, event);
          if (event.seq < last.seq) continue;
          compared += 1;
          const all = events.slice(0, event.seq);
          const right = text(decisions(never), sent(all, event.seq));
          expect(text(decisions(fromEnd), sent(fromEnd.events, event.seq))).toBe(right);
          expect(text(decisions(whole), sent(whole.events, event.seq))).toBe(right);
        }
      }),
      { numRuns: 60, seed: 12 },
    );
    expect(compared).toBeGreaterThan(500);
  });

  it("keeps of what was replaced only calls that are open and the number of the last sandbox", () => {
    const log = new EventLog().say("task");
    const gone = { hand: "sandbox", generation: 1 };
    log.add("sandbox.requested", { ...gone, template: "t" });
    log.add("sandbox.lost", { ...gone, reason: "PodDeleted", message: "m" });
    log.ask().call(["t1", "t2"]).result("t1", "r".repeat(100_000));
    const before = fold(log.events).bytes;
    log.add("context.compacted", { from: 1, to: log.seq, summary: "s" });

    const state = fold(log.events);

    expect(state.events.map(({ type }) => type)).toEqual(["context.compacted"]);
    expect([...state.calls.keys()]).toEqual(["t2"]);
    expect(placeOf(state, "sandbox", log.seq + 1)).toEqual({ kind: "none", nextGeneration: 2 });
    expect(before).toBeGreaterThan(100_000);
    expect(state.bytes).toBeLessThan(1000);
  });
});
