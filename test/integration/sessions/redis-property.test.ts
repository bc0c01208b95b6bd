import { afterAll, beforeAll, expect, it } from "@jest/globals";
import * as fc from "fast-check";
import { Redis } from "ioredis";
import { silentLogger } from "../../../src/runtime/logger.ts";
import type { LogBackend } from "../../../src/sessions/backend.ts";
import { partitionKeys, sessionKeys } from "../../../src/sessions/keys.ts";
import { noJournal } from "../../../src/sessions/memory/journal.ts";
import { MemoryBackend } from "../../../src/sessions/memory/memory-backend.ts";
import { connectRedisBackend } from "../../../src/sessions/redis/redis-session-store.ts";
import {
  type NewEvent,
  type Position,
  type Release,
  type SessionRef,
  START,
} from "../../../src/sessions/session-log.ts";
import { event, newRef, newSession } from "../../builders/sessions.ts";
import { FakeClock } from "../../fakes/fake-clock.ts";
import { createSeededRng } from "../../fakes/seeded-rng.ts";
import { type RedisServer, startRedis } from "../../servers/redis-server.ts";

/**
 * The scripts say the same as the state machine: random operations, right and wrong ones, run on
 * both, and every reply and everything that can be seen afterwards is compared. Leases are far too
 * long to end by themselves; `expire` lets the life of a lease pass on both sides. All sessions
 * share a partition, and workers come back under the same few incarnations.
 */

const POOL = { code: "prop", partitions: 1 };

const TTL_MS = 600_000;
const TYPES = [
  "user.message",
  "tool.result",
  "model.request_end",
  "sandbox.requested",
  "sandbox.released",
  "session.suspend_requested",
  "session.resume_requested",
  "session.stop_requested",
  "session.error",
  "tool.intent",
];
const RELEASES: readonly (Release | null)[] = [
  null,
  null,
  { kind: "idle", why: "end_turn" },
  { kind: "requeue" },
  { kind: "after", delayMs: 0 },
  { kind: "after", delayMs: 9_000_000_000 },
  { kind: "suspended" },
  { kind: "terminated", why: "stop" },
];

const pick = fc.nat({ max: 1000 });
const types = fc.array(fc.constantFrom(...TYPES), { minLength: 1, maxLength: 3 });
const op = fc.oneof(
  {
    weight: 2,
    arbitrary: fc.record({
      op: fc.constant("create" as const),
      s: pick,
      wake: fc.boolean(),
      api: fc.boolean(),
      types,
    }),
  },
  {
    weight: 4,
    arbitrary: fc.record({
      op: fc.constant("append" as const),
      s: pick,
      key: pick,
      types,
      wake: fc.boolean(),
      onlyIfIdle: fc.constantFrom("no", "no", "tail", "older"),
    }),
  },
  {
    weight: 8,
    arbitrary: fc.record({
      op: fc.constant("leased" as const),
      s: pick,
      token: pick,
      n: fc.constantFrom(0, 0, 0, 0, 1, -1),
      prev: fc.constantFrom(
        "tail",
        "tail",
        "tail",
        "older",
        "older-wrong",
        "other-beginning",
        "start",
        "wrong",
        "beyond",
      ),
      again: fc.boolean(),
      onlyIfTail: fc.boolean(),
      release: fc.constantFrom(...RELEASES),
      types,
    }),
  },
  {
    weight: 5,
    arbitrary: fc.record({
      op: fc.constant("claim" as const),
      worker: pick,
      suspect: pick,
      takesSuspect: fc.constantFrom(true, true, true, false),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      op: fc.constant("beat" as const),
      s: pick,
      worker: pick,
      suspect: pick,
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      op: fc.constant("settle" as const),
      s: pick,
      wrong: fc.boolean(),
      types,
    }),
  },
  { weight: 3, arbitrary: fc.record({ op: fc.constant("expire" as const) }) },
  {
    weight: 1,
    arbitrary: fc.record({
      op: fc.constant("deaths" as const),
      times: fc.integer({ min: 2, max: 12 }),
      sameWorker: fc.constantFrom(false, false, true),
    }),
  },
  { weight: 2, arbitrary: fc.record({ op: fc.constant("renew" as const), s: pick, token: pick }) },
  {
    weight: 3,
    arbitrary: fc.record({
      op: fc.constant("release" as const),
      s: pick,
      token: pick,
      seen: pick,
      release: fc.constantFrom(...RELEASES),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      op: fc.constant("barrier" as const),
      s: pick,
      token: pick,
      prev: fc.constantFrom("tail", "older", "older-wrong", "other-beginning", "wrong", "beyond"),
    }),
  },
  { weight: 2, arbitrary: fc.record({ op: fc.constant("wake" as const), s: pick }) },
  { weight: 1, arbitrary: fc.record({ op: fc.constant("answer" as const), s: pick }) },
  {
    weight: 1,
    arbitrary: fc.record({ op: fc.constant("ack" as const), s: pick, stale: fc.boolean() }),
  },
  { weight: 1, arbitrary: fc.record({ op: fc.constant("remove" as const), s: pick }) },
);
type Op = typeof op extends fc.Arbitrary<infer T> ? T : never;

let server: RedisServer;
let admin: Redis;
let redis: LogBackend;
const clock = new FakeClock();

beforeAll(async () => {
  server = await startRedis({ args: ["--appendfsync", "no"] });
  admin = new Redis(server.url, { retryStrategy: () => null });
  redis = await connectRedisBackend({
    url: server.url,
    commit: { mode: "provider" },
    pools: [POOL],
    clock,
    rng: createSeededRng(),
    logger: silentLogger,
  });
  await clock.advance(TTL_MS * 2);
});

afterAll(async () => {
  await redis.close();
  admin.disconnect();
  await server.stop();
});

it("the Lua scripts and the state machine answer alike, whatever is asked of them", async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(op, { minLength: 5, maxLength: 60, size: "max" }), async (ops) => {
      await admin.flushall();
      const pair = new Pair(new MemoryBackend({ clock, journal: noJournal }), (left, right) =>
        expect(right).toEqual(left),
      );
      for (const each of ops) await pair.run(each);
      await pair.run({ op: "claim", worker: 0, suspect: 0, takesSuspect: true });
    }),
    { numRuns: 40, interruptAfterTimeLimit: 12_000 },
  );
});

/** Runs each operation on both sides and compares. */
class Pair {
  readonly #memory: LogBackend;
  readonly #same: (left: unknown, right: unknown) => void;
  readonly #refs: SessionRef[] = [
    newRef("team-a", POOL),
    newRef("team-b", POOL),
    newRef("team-a", POOL),
  ];
  readonly #tokens: string[] = ["", "1.unknown"];
  /** The last token of each session. */
  readonly #holders = new Map<string, string>();
  readonly #ordinals = new Map<string, number>();
  readonly #sent = new Map<string, NewEvent[]>();
  #nonces = 0;
  /** Real time at which the time of now began. */
  #began = Date.now();

  constructor(memory: LogBackend, same: (left: unknown, right: unknown) => void) {
    this.#memory = memory;
    this.#same = same;
  }

  async run(each: Op): Promise<void> {
    await this.#apply(each);
    await this.#compareViews();
  }

  async #both<T>(what: (backend: LogBackend) => Promise<T>): Promise<T> {
    const [left, right] = await Promise.all([what(this.#memory), what(redis)]);
    this.#same(left, right);
    return left;
  }

  async #apply(each: Op): Promise<void> {
    switch (each.op) {
      case "create": {
        const session = newSession(this.#ref(each.s), {
          events: each.types.map(eventOf),
          wake: each.wake,
          source: each.api ? "api" : "manifest",
        });
        this.#nonces += 1;
        await this.#both((backend) => backend.create(session, `gen${this.#nonces}`));
        return;
      }
      case "append": {
        const tail = (await this.#memory.head(this.#ref(each.s)))?.pos.seq ?? 0;
        const at = each.onlyIfIdle === "tail" ? tail : Math.max(0, tail - 1);
        const request = {
          key: `k${each.key % 4}`,
          wake: each.wake,
          onlyIfIdleAt: each.onlyIfIdle === "no" ? undefined : at,
          events: each.types.map(eventOf),
        };
        await this.#both((backend) => backend.append(this.#ref(each.s), request, "applied"));
        return;
      }
      case "leased":
        return await this.#leased(each);
      case "claim":
        return await this.#claim(each);
      case "beat": {
        // A worker that has lost its lease says once more that it lives.
        const lease = { ref: this.#ref(each.s), token: "1.unknown" };
        const incarnation = incarnationOf(each.worker);
        const beat = { ttlMs: TTL_MS, incarnation, suspect: this.#suspect(each.suspect) };
        await this.#both((backend) => backend.renew([lease], beat));
        return;
      }
      case "settle": {
        const ref = this.#ref(each.s);
        const [state] = await this.#memory.statesOf([ref]);
        const epoch = (state?.epoch ?? 0) + (each.wrong ? 1 : 0);
        const events = each.types.map(eventOf);
        await this.#both((backend) => backend.settle(ref, { epoch, events }));
        return;
      }
      case "expire":
        return await this.#expire();
      case "deaths":
        for (let i = 0; i < each.times; i += 1) {
          await this.#expire();
          await this.#claim({ worker: each.sameWorker ? 0 : i, suspect: 0, takesSuspect: true });
        }
        return;
      case "renew": {
        const ref = this.#ref(each.s);
        const lease = { ref, token: this.#token(ref, each.token) };
        await this.#both((backend) =>
          backend.renew([lease], { ttlMs: TTL_MS, incarnation: "x", suspect: "" }),
        );
        return;
      }
      case "release": {
        const ref = this.#ref(each.s);
        const tail = (await this.#memory.head(ref))?.pos.seq ?? 0;
        const seen = each.seen % 3 === 0 ? Math.max(0, tail - 1) : tail;
        const release = each.release ?? { kind: "requeue" };
        const token = this.#token(ref, each.token);
        await this.#both((backend) => backend.release(ref, { token, seen, release }));
        return;
      }
      case "barrier": {
        const ref = this.#ref(each.s);
        const prev = await this.#position(ref, each.prev);
        const token = this.#token(ref, each.token);
        await this.#both((backend) => backend.barrier(ref, { token, prev }));
        return;
      }
      case "wake":
        await this.#both((backend) => backend.wake(this.#ref(each.s)));
        return;
      case "answer": {
        const [open] = (await this.#memory.openRequests()).filter(
          ({ ref }) => ref.id === this.#ref(each.s).id,
        );
        if (open !== undefined) await this.#both((backend) => backend.answered(open));
        return;
      }
      case "ack":
        for (const backend of [this.#memory, redis]) {
          const open = (await backend.openChanges()).find(
            ({ ref }) => ref.id === this.#ref(each.s).id,
          );
          if (open === undefined) continue;
          await backend.ackState(each.stale ? { ...open, why: "other" } : open);
        }
        return;
      case "remove":
        await this.#both((backend) => backend.remove(this.#ref(each.s)));
    }
  }

  async #leased(each: Extract<Op, { op: "leased" }>): Promise<void> {
    const ref = this.#ref(each.s);
    const token = this.#token(ref, each.token);
    const last = this.#ordinals.get(token) ?? 0;
    const earlier = this.#sent.get(token);
    const isRepeat = each.again && earlier !== undefined;
    const events = isRepeat ? earlier : each.types.map(eventOf);
    const request = {
      token,
      n: isRepeat ? last : last + 1 + each.n,
      prev: await this.#position(ref, each.prev),
      onlyIfTail: each.onlyIfTail,
      release: each.release,
      events,
    };
    const options = { durability: "applied", signal: new AbortController().signal } as const;
    const reply = await this.#both((backend) => backend.appendLeased(ref, request, options));
    if (reply.word !== "OK") return;
    this.#ordinals.set(token, request.n);
    this.#sent.set(token, events);
  }

  async #claim(each: { worker: number; suspect: number; takesSuspect: boolean }): Promise<void> {
    this.#nonces += 1;
    const incarnation = incarnationOf(each.worker);
    const request = {
      worker: `w${this.#nonces}`,
      nonce: incarnation === "" ? `${this.#nonces}` : `${incarnation}-${this.#nonces}`,
      ttlMs: TTL_MS,
      max: 100,
      suspect: this.#suspect(each.suspect),
      takesSuspect: each.takesSuspect,
    };
    const batch = await this.#both(async (backend) => {
      const { leases, unsettled } = await backend.claim(request);
      const byId = (a: { ref: SessionRef }, b: { ref: SessionRef }) =>
        a.ref.id < b.ref.id ? -1 : 1;
      return { leases: leases.toSorted(byId), unsettled: unsettled.toSorted(byId) };
    });
    for (const { ref, token } of batch.leases) {
      this.#tokens.push(token);
      this.#holders.set(ref.id, token);
    }
  }

  /** What the clock does to memory, done to the times that Redis has written down. */
  async #expire(): Promise<void> {
    const passed = TTL_MS + 1;
    await clock.advance(passed);
    const [seconds = 0] = await admin.time();
    const began = this.#began;
    this.#began = seconds * 1000;
    const { due, alive } = partitionKeys(POOL.code, "00");
    const dues = await admin.zrange(due, "0", "-1", "WITHSCORES");
    for (let i = 0; i < dues.length; i += 2) {
      // In memory no time passes between two of these; here what is nearly the same becomes the same.
      const after = Math.round((Number(dues[i + 1]) - began) / 20_000) * 20_000;
      await admin.zadd(due, began + after - passed, dues[i] ?? "");
    }
    const earlier = (text: string) =>
      text.replaceAll(/\d{13}/g, (time) => `${Number(time) - passed}`);
    for (const [name, value] of Object.entries(await admin.hgetall(alive))) {
      await admin.hset(alive, name, earlier(value));
    }
    for (const ref of this.#refs) {
      const { meta } = sessionKeys(ref);
      const kl = await admin.hget(meta, "kl");
      if (kl !== null) await admin.hset(meta, "kl", earlier(kl));
    }
  }

  async #compareViews(): Promise<void> {
    await this.#both(async (backend) => ({
      requests: (await backend.openRequests()).toSorted((a, b) =>
        a.requestId < b.requestId ? -1 : 1,
      ),
      changes: (await backend.openChanges())
        .map((change) => ({ ...change, ts: 0 }))
        .toSorted((a, b) => (a.ref.id < b.ref.id ? -1 : 1)),
      sessions: await Promise.all(this.#refs.map((ref) => viewOf(backend, ref))),
    }));
  }

  async #position(ref: SessionRef, which: string): Promise<Position> {
    const events = (await this.#memory.read(ref, { limit: 1000, reverse: false })) ?? [];
    const at = which === "older" ? events.at(-2) : events.at(-1);
    const { seq, id, chain } = at ?? START;
    switch (which) {
      case "start":
        return START;
      case "older-wrong":
        return { seq: Math.max(0, seq - 1), id: seq <= 1 ? "" : "sevt_wrong", chain };
      case "wrong":
        return { seq, id: seq === 0 ? "" : "sevt_wrong", chain };
      case "other-beginning":
        return { seq, id, chain: "0123456789abcdef" };
      case "beyond":
        return { seq: seq + 3, id, chain };
      default:
        return { seq, id, chain };
    }
  }

  /** Mostly none, else one of the sessions, by its name in the tables. */
  #suspect(n: number): string {
    return n % 3 > 0 ? "" : sessionKeys(this.#ref(n)).member;
  }

  #ref(n: number): SessionRef {
    return this.#refs[n % this.#refs.length] ?? newRef();
  }

  /** Mostly the token that holds or held the session last, sometimes another. */
  #token(ref: SessionRef, n: number): string {
    const last = this.#holders.get(ref.id);
    return last !== undefined && n % 8 > 0 ? last : (this.#tokens[n % this.#tokens.length] ?? "");
  }
}

/** One of a few lives of workers, or none: tokens of earlier versions name none. */
function incarnationOf(n: number): string {
  return ["a1", "b2", "c3", ""][n % 4] ?? "";
}

function eventOf(type: string): NewEvent {
  switch (type) {
    case "sandbox.requested":
    case "sandbox.released":
      return event(type, { hand: 'ma"in', generation: 2 });
    case "session.stop_requested":
      return event(type, { reason: 'st"op' });
    default:
      return event(type, { text: "ä" });
  }
}

/** All that can be read of a session, times aside. */
async function viewOf(backend: LogBackend, ref: SessionRef) {
  const [head, [state], lease, events] = await Promise.all([
    backend.head(ref),
    backend.statesOf([ref]),
    backend.readLease(ref.tenant, ref.id),
    backend.read(ref, { limit: 1000, reverse: false }),
  ]);
  return {
    head,
    state: state === null || state === undefined ? null : { ...state, lts: 0 },
    lease,
    events: events?.map((stored) => ({ ...stored, ts: 0 })),
  };
}
