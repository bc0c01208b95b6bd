import { describe, expect, it } from "@jest/globals";
import { event, message } from "../../test/builders/sessions.ts";
import { chainAt } from "./chain.ts";
import type { ClaimOp, ClaimSurroundings, LeasedAppendOp, LogState } from "./log-state.ts";
import { type Release, START, type StoredEvent } from "./session-log.ts";
import * as rules from "./state-machine.ts";

const NOW = 1_000_000;
const around = { now: NOW, eventAt: () => undefined };

function created(overrides: Partial<LogState> = {}): LogState {
  const op = { gen: "g", src: "manifest", wake: true, events: [message("1")] } as const;
  const { state } = rules.create(null, op, around);
  if (state === null) throw new Error("not created");
  return { ...state, ...overrides };
}

function claimed(overrides: Partial<LogState> = {}): LogState {
  const { state } = rules.claim(created(), claimOp({ worker: "w", nonce: "n" }), facts());
  if (state === null) throw new Error("not claimed");
  return { ...state, ...overrides };
}

function claimOp(overrides: Partial<ClaimOp> = {}): ClaimOp {
  return {
    worker: "w2",
    nonce: "m",
    ttlMs: 800,
    stealExpired: true,
    suspect: "",
    takesSuspect: true,
    ...overrides,
  };
}

function facts(overrides: Partial<ClaimSurroundings> = {}): ClaimSurroundings {
  return { now: NOW, member: "team-a:s", heard: () => undefined, ...overrides };
}

function batch(state: LogState, overrides: Partial<LeasedAppendOp> = {}): LeasedAppendOp {
  return {
    token: state.tok,
    n: state.wn + 1,
    prev: { seq: state.seq, id: state.lid, chain: chainAt(state.ch, state.seq) },
    onlyIfTail: false,
    release: null,
    events: [event("tool.result")],
    ...overrides,
  };
}

describe("time", () => {
  it("a clock that goes back does not take events back", () => {
    const state = created();

    const { appended } = rules.appendExternal(
      state,
      { known: undefined, key: "k", wake: true, events: [message("2")] },
      { ...around, now: NOW - 5000 },
    );

    expect(appended.map(({ ts }) => ts)).toEqual([NOW]);
  });

  it("waking never delays a session that is due earlier", () => {
    const { state } = rules.wake(created({ due: NOW - 100 }), around);

    expect(state?.due).toBe(NOW - 100);
  });

  it("a lease that has run out but was not claimed may be renewed", () => {
    const state = claimed();

    const renewed = rules.renew(state, { token: state.tok, ttlMs: 800 }, { now: NOW + 10_000 });

    expect(renewed).toMatchObject({ reply: state.seq, state: { due: NOW + 10_800 } });
  });

  it("idempotency keys go after a day, the oldest first, four at most in one call", () => {
    const day = 24 * 60 * 60 * 1000;
    const keys = Array.from({ length: 50 }, (_, i) => [`k${i}`, { ms: i < 40 ? 0 : day }] as const);

    expect(rules.expiredKeys(keys, day + 1)).toEqual(["k0", "k1", "k2", "k3"]);
    expect(rules.expiredKeys(keys.slice(38), day + 1)).toEqual(["k38", "k39"]);
    expect(rules.expiredKeys(keys, day)).toEqual([]);
  });
});

describe("claims", () => {
  it.each<{ name: string; state: LogState; steal: boolean; word: string }>([
    { name: "a free session that is due", state: created(), steal: false, word: "OK" },
    {
      name: "one that is not due yet",
      state: created({ due: NOW + 1 }),
      steal: true,
      word: "BUSY",
    },
    { name: "one with nothing to do", state: created({ due: null }), steal: true, word: "BUSY" },
    { name: "one under a lease", state: claimed(), steal: true, word: "BUSY" },
    { name: "an expired lease", state: claimed({ due: NOW }), steal: true, word: "OK" },
    {
      name: "an expired lease after an outage",
      state: claimed({ due: NOW }),
      steal: false,
      word: "BUSY",
    },
    { name: "a suspended session", state: created({ st: "suspended" }), steal: true, word: "GONE" },
    { name: "a terminated one", state: created({ st: "terminated" }), steal: true, word: "GONE" },
    {
      name: "the fifth death without progress",
      state: claimed({ due: NOW, tk: 4 }),
      steal: true,
      word: "UNSETTLED",
    },
  ])("$name: $word", ({ state, steal, word }) => {
    const { reply } = rules.claim(state, claimOp({ stealExpired: steal }), facts());

    expect(reply.word).toBe(word);
  });

  it("a token holds by equality, not by its epoch", () => {
    const state = claimed();

    const zombie = rules.appendLeased(state, batch(state, { token: `${state.ep}.other` }), around);

    expect(zombie.reply.word).toBe("FENCED");
  });

  it("no token holds a session that nobody holds", () => {
    const state = created();

    const reply = rules.appendLeased(state, batch(state, { token: "" }), around);

    expect(reply.reply.word).toBe("FENCED");
  });
});

describe("giving up", () => {
  const cases: { how: Release; unseen: boolean; want: Partial<LogState> }[] = [
    { how: { kind: "requeue" }, unseen: false, want: { st: "running", due: NOW } },
    { how: { kind: "after", delayMs: 50 }, unseen: false, want: { due: NOW + 50 } },
    { how: { kind: "after", delayMs: 50 }, unseen: true, want: { due: NOW } },
    { how: { kind: "suspended" }, unseen: false, want: { st: "suspended", due: null } },
    { how: { kind: "suspended" }, unseen: true, want: { st: "running", due: NOW } },
    {
      how: { kind: "terminated", why: "stop" },
      unseen: true,
      want: { st: "terminated", why: "stop", due: null },
    },
    { how: { kind: "idle", why: "end_turn" }, unseen: false, want: { st: "idle", due: null } },
  ];

  it.each(cases)("$how.kind with unread events: $unseen", ({ how, unseen, want }) => {
    const state = claimed({ st: "running", tk: 3 });
    const seen = unseen ? state.seq - 1 : state.seq;

    const { state: after } = rules.release(state, { token: state.tok, seen, release: how }, around);

    expect(after).toMatchObject({ tok: "", own: "", tk: 0, ...want });
  });

  it("an idle release with unread events changes nothing", () => {
    const state = claimed();
    const release = { kind: "idle", why: "end_turn" } as const;

    const asked = rules.release(state, { token: state.tok, seen: 0, release }, around);
    const written = rules.appendLeased(state, batch(state, { prev: START, release }), around);

    expect(asked).toEqual({ state, reply: { word: "MORE", seq: 1 }, appended: [] });
    expect(written).toEqual({ state, reply: { word: "MORE", seq: 1 }, appended: [] });
  });
});

describe("what the operator is told", () => {
  it("a state that is set again is no change", () => {
    const state = created({ st: "idle", why: "end_turn", change: null });
    const { state: leased } = rules.claim(state, claimOp(), facts());
    const release = { kind: "idle", why: "end_turn" } as const;
    const op = { token: leased?.tok ?? "", seen: 1, release };

    expect(rules.release(leased, op, around).state?.change).toBeNull();
  });

  it("a reason is reduced to word characters", () => {
    const stop = event("session.stop_requested", { reason: 'a"b c' });

    const { state } = rules.appendExternal(
      created({ st: "quarantined" }),
      { known: undefined, key: "k", wake: true, events: [stop] },
      around,
    );

    expect(state).toMatchObject({ st: "terminated", why: "abc" });
  });

  it("a holder obeys by itself: control events under a lease change no state", () => {
    const state = claimed({ st: "running" });

    const applied = rules.appendExternal(
      state,
      { known: undefined, key: "k", wake: true, events: [event("session.suspend_requested")] },
      around,
    );

    expect(applied.state).toMatchObject({ st: "running", tok: state.tok, due: state.due });
  });
});

it("no transition changes the state it was given", () => {
  const state = Object.freeze({ ...claimed(), hands: Object.freeze([]) });
  const events: StoredEvent[] = [];

  const { appended } = rules.appendLeased(
    state,
    batch(state, { events: [event("sandbox.requested", { hand: "main", generation: 1 })] }),
    around,
  );
  events.push(...appended);

  expect(state.hands).toEqual([]);
  expect(events).toHaveLength(1);
});
