import { describe, expect, it } from "@jest/globals";
import { event, message } from "../../test/builders/sessions.ts";
import { chainAt } from "./chain.ts";
import type { LogState } from "./log-state.ts";
import * as rules from "./state-machine.ts";
import type { LastWord } from "./takeover.ts";

const TTL = 800;
const START = 1_000_000;
const MEMBER = "team-a:s";

/** One session and the workers that come and go, by the rules alone. */
class Life {
  state: LogState;
  now = START;
  readonly heard = new Map<string, LastWord>();
  #calls = 0;

  constructor() {
    const op = { gen: "g", src: "manifest", wake: true, events: [message("1")] } as const;
    const { state } = rules.create(null, op, { now: START, eventAt: () => undefined });
    if (state === null) throw new Error("not created");
    this.state = state;
  }

  pass(ms: number): this {
    this.now += ms;
    return this;
  }

  /** Deaths so far when the worker gets the session, else the word of the refusal. */
  claim(worker: string, options: { suspect?: string; takesSuspect?: boolean } = {}) {
    this.#calls += 1;
    const { suspect = "", takesSuspect = true } = options;
    const applied = rules.claim(
      this.state,
      {
        worker: "pod",
        nonce: `${worker}-${this.#calls}`,
        ttlMs: TTL,
        stealExpired: true,
        suspect,
        takesSuspect,
      },
      { now: this.now, member: MEMBER, heard: (name) => this.heard.get(name) },
    );
    if (applied.state !== null) this.state = applied.state;
    if (applied.reply.word === "OK") this.heard.set(worker, { at: this.now, suspect });
    return applied.reply.word === "OK" ? applied.reply.takeover : applied.reply.word;
  }

  /** The worker is heard of; it may hold this session or not. */
  beat(worker: string, suspect = ""): this {
    this.heard.set(worker, { at: this.now, suspect });
    return this;
  }

  renew(): this {
    const renewed = rules.renew(this.state, { token: this.state.tok, ttlMs: TTL }, this);
    if (renewed.state !== null) this.state = renewed.state;
    return this;
  }

  write(...types: string[]): this {
    const { state } = rules.appendLeased(
      this.state,
      {
        token: this.state.tok,
        n: this.state.wn + 1,
        prev: {
          seq: this.state.seq,
          id: this.state.lid,
          chain: chainAt(this.state.ch, this.state.seq),
        },
        onlyIfTail: false,
        release: null,
        events: types.map((type) => event(type, { hand: "main", generation: 1 })),
      },
      { now: this.now, eventAt: () => undefined },
    );
    if (state !== null) this.state = state;
    return this;
  }
}

describe("whose lease is taken", () => {
  it("a worker that is heard of keeps its lease for two lives more, then has lost it and nobody died", () => {
    const life = new Life();
    life.claim("a");

    life.pass(TTL).beat("a").pass(10);
    expect(life.claim("b")).toBe("BUSY");
    life.pass(2 * TTL - 20).beat("a");
    expect(life.claim("b")).toBe("BUSY");

    expect(life.pass(20).claim("b")).toBe(0);
  });

  it("a worker does not take its own lease before that either", () => {
    const life = new Life();
    life.claim("a");

    expect(life.pass(TTL + 1).claim("a")).toBe("BUSY");
    expect(life.pass(2 * TTL).claim("a")).toBe(0);
  });

  it("the lease of a silent worker is taken when it has run out", () => {
    const life = new Life();
    life.claim("a");

    expect(life.pass(TTL - 1).claim("b")).toBe("BUSY");
    expect(life.pass(1).claim("b")).toBe(1);
  });

  it("tokens of earlier versions name no worker: theirs is taken when it has run out", () => {
    const life = new Life();
    life.state = { ...life.state, tok: "1.0123456789abcdef", ep: 1, due: START };

    expect(life.claim("b")).toBe(1);
  });
});

describe("what is held against a session", () => {
  it("a worker that was only away and is heard of again has not died", () => {
    const life = new Life();
    life.claim("a");
    expect(life.pass(TTL).claim("b")).toBe(1);

    life.pass(10).beat("a");

    expect(life.pass(TTL).claim("c")).toBe(1);
  });

  it("nor one that comes back in time to renew the lease it thinks it has", () => {
    const life = new Life();
    life.claim("a");
    life.pass(TTL).claim("b");
    life.pass(TTL);
    expect(life.claim("c")).toBe("BUSY");

    life.pass(100).beat("b").renew();
    life.pass(TTL);

    // It is looked at anew: a has died, and b now.
    expect(life.claim("c")).toBe("BUSY");
    expect(life.state.tk).toBe(2);
  });

  it("the death of a worker that has named another suspect is not", () => {
    const life = new Life();
    life.claim("a");
    life.beat("a", "team-a:other");

    expect(life.pass(TTL).claim("b")).toBe(0);
  });

  it("the death of a worker that has named it is", () => {
    const life = new Life();
    life.claim("a");
    life.beat("a", MEMBER);

    expect(life.pass(TTL).claim("b")).toBe(1);
  });

  it.each([
    { does: "waits for a sandbox", types: ["sandbox.requested"], deaths: 0 },
    { does: "waits before it asks the model again", types: ["session.error"], deaths: 0 },
    { does: "asks the model", types: ["session.error", "model.request_start"], deaths: 1 },
    { does: "runs a tool", types: ["model.request_end", "tool.intent"], deaths: 1 },
    { does: "has written nothing yet", types: [], deaths: 1 },
  ])("a session that $does when its worker dies: $deaths", ({ types, deaths }) => {
    const life = new Life();
    life.claim("a");
    if (types.length > 0) life.write(...types);

    expect(life.pass(TTL).claim("b")).toBe(deaths);
  });

  it("a session whose sandbox has come while it waited is at work again", () => {
    const life = new Life();
    life.claim("a");
    life.write("sandbox.requested");
    const provisioned = { known: undefined, key: "k", wake: true, events: [event("sandbox.lost")] };
    const { state } = rules.appendExternal(life.state, provisioned, {
      now: life.now,
      eventAt: () => undefined,
    });
    if (state !== null) life.state = state;

    expect(life.pass(TTL).claim("b")).toBe(1);
  });
});

describe("takeovers without progress", () => {
  it("come after a pause that grows, and end after the fifth death", () => {
    const life = new Life();
    const pauses: number[] = [];
    life.claim("w0");
    for (let i = 1; life.state.st !== "quarantined" && i < 9; i += 1) {
      life.pass(TTL);
      const ranOut = life.now;
      while (life.claim(`w${i}`) === "BUSY") life.pass(100);
      pauses.push(life.now - ranOut);
    }

    expect(pauses).toEqual([0, 4 * TTL, 16 * TTL, 51_200, 0]);
    expect(life.state).toMatchObject({ st: "quarantined", why: "takeovers", tok: "", tk: 5 });
  });

  it("messages do not shorten the pause", () => {
    const life = new Life();
    life.claim("a");
    life.pass(TTL).claim("b");
    life.pass(TTL).claim("c");

    const op = { known: undefined, key: "k", wake: true, events: [message("hurry")] };
    const { state } = rules.appendExternal(life.state, op, {
      now: life.now,
      eventAt: () => undefined,
    });
    if (state !== null) life.state = state;

    expect(life.pass(TTL).claim("c")).toBe("BUSY");
  });

  it("a suspect goes only to a worker that may take one", () => {
    const life = new Life();
    life.claim("a");
    life.pass(TTL).claim("b");
    life.pass(TTL).claim("c");
    life.pass(4 * TTL);

    expect(life.claim("c", { takesSuspect: false })).toBe("BUSY");
    expect(life.claim("c")).toBe(2);
  });
});
