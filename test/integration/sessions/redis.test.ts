import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "@jest/globals";
import { Redis } from "ioredis";
import { systemClock } from "../../../src/runtime/clock.ts";
import { silentLogger } from "../../../src/runtime/logger.ts";
import { systemRng } from "../../../src/runtime/rng.ts";
import { sessionKeys } from "../../../src/sessions/keys.ts";
import {
  connectRedisBackend,
  connectRedisSessionStore,
} from "../../../src/sessions/redis/redis-session-store.ts";
import type { SessionRef, SessionStore } from "../../../src/sessions/session-log.ts";
import { assembleStore } from "../../../src/sessions/store/session-store.ts";
import { message, newRef, newSession } from "../../builders/sessions.ts";
import { CONTRACT_POOLS } from "../../contracts/session-log/rig.ts";
import { describeSessionLog } from "../../contracts/session-log/suite.ts";
import { type RedisServer, startRedis } from "../../servers/redis-server.ts";

let server: RedisServer;

beforeAll(async () => {
  server = await startRedis();
});

afterAll(async () => {
  await server.stop();
});

const common = {
  commit: { mode: "fsync" },
  pools: CONTRACT_POOLS,
  clock: systemClock,
  rng: systemRng,
  logger: silentLogger,
} as const;

describeSessionLog("redis", async (timings) => {
  const admin = new Redis(server.url, { retryStrategy: () => null });
  await admin.flushall();
  const options = { url: server.url, ...common };
  const backend = await connectRedisBackend(options);
  const store = assembleStore({ ...options, backend, timings });
  return {
    store,
    backend,
    pass: (ms: number) => systemClock.sleep(ms),
    traces: async (ref) => {
      const found: string[] = [];
      for (const key of await admin.keys("*")) {
        if (key.includes(ref.id)) found.push(key);
        const type = await admin.type(key);
        if (type === "hash" && JSON.stringify(await admin.hgetall(key)).includes(ref.id)) {
          found.push(key);
        }
        if (type === "string" && ((await admin.get(key)) ?? "").includes(ref.id)) found.push(key);
        if (type === "zset" && (await admin.zrange(key, "0", "-1")).join().includes(ref.id)) {
          found.push(key);
        }
      }
      return found;
    },
    close: async () => {
      await store.close();
      admin.disconnect();
    },
  };
});

describe("tables in Redis", () => {
  let admin: Redis;
  let store: SessionStore;

  beforeEach(async () => {
    admin = new Redis(server.url, { retryStrategy: () => null });
    await admin.flushall();
    store = await connectRedisSessionStore({ url: server.url, ...common });
  });

  afterEach(async () => {
    await store.close();
    admin.disconnect();
  });

  const append = (ref: SessionRef, idempotencyKey: string) =>
    store.log.emitEvents(ref, [message("x")], { idempotencyKey });

  it("idempotency keys older than a day go, four a call, oldest first; younger ones stay", async () => {
    const ref = newRef();
    await store.log.createSession(newSession(ref));
    for (let i = 0; i < 10; i += 1) await append(ref, `old${i}`);
    await append(ref, "young");
    const { idempotency } = sessionKeys(ref);
    const day = 24 * 60 * 60 * 1000;
    for (const [field, value] of Object.entries(await admin.hgetall(idempotency))) {
      if (!value.includes(":old")) continue;
      await admin.hset(idempotency, field, `${Date.now() - day - 1000}:${value.split(":")[1]}`);
    }

    const left: string[][] = [];
    for (let i = 0; i < 4; i += 1) {
      await append(ref, `k${i}`);
      const fields = await admin.hkeys(idempotency);
      left.push(fields.filter((field) => field.startsWith("old")).toSorted());
    }

    expect(left).toEqual([
      ["old4", "old5", "old6", "old7", "old8", "old9"],
      ["old8", "old9"],
      [],
      [],
    ]);
    expect(await append(ref, "young")).toMatchObject({ duplicate: true });
    expect(await append(ref, "old0")).toMatchObject({ duplicate: false });
    // A key and its place in the queue, of what is left, and nothing else.
    expect(await admin.hlen(idempotency)).toBe(2 * 6);
  });

  it("an append looks at as many keys when there are hundreds as when there are few", async () => {
    const ref = newRef();
    await store.log.createSession(newSession(ref));
    const commandsOf = async (count: number) => {
      await admin.config("RESETSTAT");
      await Promise.all(Array.from({ length: count }, () => append(ref, `k${keys++}`)));
      const stats = await admin.info("commandstats");
      const calls = [...stats.matchAll(/^cmdstat_(h\w+):calls=(\d+)/gm)];
      return calls.map(([, name, n]) => `${name} ${Number(n) / count}`).toSorted();
    };
    let keys = 0;

    await commandsOf(1);
    const few = await commandsOf(20);
    await commandsOf(600);
    const many = await commandsOf(20);

    expect(many).toEqual(few);
    expect(many.map((line) => line.split(" ")[0])).not.toContain("hscan");
  });

  it("a key that could stand for a place in the queue is refused", async () => {
    const ref = newRef();
    await store.log.createSession(newSession(ref));

    await expect(append(ref, "\u00001")).rejects.toMatchObject({ code: "INPUT_INVALID" });
  });

  it("a record that is no request does not hide the others from the operator", async () => {
    const ref = newRef();
    const { hands, state, member } = sessionKeys(ref);
    const record = JSON.stringify({ member, kind: "provision", hand: "main", generation: 1 });
    await admin.hset(hands, "a", "not json", "b", "{}", "c", record);
    await admin.hset(state, "x:y", "[]");
    await store.log.createSession(newSession(ref));
    const signal = AbortSignal.timeout(5000);

    expect(await first(store.operator.requests(signal))).toMatchObject({ ref, requestId: "c" });
    expect(await first(store.operator.changes(signal))).toMatchObject({ ref, status: "created" });
  });

  it("a pool that is watched later is told about from then on", async () => {
    const pool = { code: "late", partitions: 2 };
    const ref = newRef("team-a", pool);
    await store.log.createSession(newSession(ref));
    const signal = AbortSignal.timeout(8000);
    const told = first(store.operator.changes(signal));

    store.operator.watchPools([...CONTRACT_POOLS, pool]);

    expect(await told).toMatchObject({ ref });
  });

  it("workers of another pool do not claim the session", async () => {
    const ref = newRef("team-a", { code: "othr", partitions: 1 });
    await store.log.createSession(newSession(ref));
    const options = { capacity: () => 1, signal: AbortSignal.timeout(500) };
    const claimed = [];

    for await (const lease of store.queue("w").claim(options)) claimed.push(lease);

    expect(claimed).toEqual([]);
  });
});

async function first<T>(source: AsyncIterable<T>): Promise<T | undefined> {
  for await (const item of source) return item;
  return undefined;
}
