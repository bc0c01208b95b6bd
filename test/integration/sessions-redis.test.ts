import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "@jest/globals";
import { Redis } from "ioredis";
import { systemClock } from "../../src/runtime/clock.ts";
import { silentLogger } from "../../src/runtime/logger.ts";
import { systemRng } from "../../src/runtime/rng.ts";
import { sessionKeys } from "../../src/sessions/keys.ts";
import {
  connectRedisBackend,
  connectRedisSessionStore,
} from "../../src/sessions/redis/redis-session-store.ts";
import type { SessionStore } from "../../src/sessions/session-log.ts";
import { assembleStore } from "../../src/sessions/store/session-store.ts";
import { CONTRACT_POOLS, CONTRACT_TIMINGS, describeSessionLog } from "../contracts/session-log.ts";
import { type RedisServer, startRedis } from "../fakes/redis-server.ts";
import { message, newRef, newSession } from "../fakes/session-fixtures.ts";

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

describeSessionLog("redis", async () => {
  const admin = new Redis(server.url, { retryStrategy: () => null });
  await admin.flushall();
  const options = { url: server.url, ...common };
  const backend = await connectRedisBackend(options);
  const store = assembleStore({ ...options, backend, timings: CONTRACT_TIMINGS });
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

  it("idempotency keys older than a day go bit by bit, younger ones stay", async () => {
    const ref = newRef();
    await store.log.createSession(newSession(ref));
    const { idempotency } = sessionKeys(ref);
    const day = 24 * 60 * 60 * 1000;
    const old = Array.from({ length: 600 }, (_, i) => [`old${i}`, `1:${Date.now() - day - 1000}`]);
    await admin.hset(idempotency, ...old.flat(), "young", `1:${Date.now() - day + 60_000}`);

    await store.log.emitEvents(ref, [message("x")], { idempotencyKey: "k0" });
    const afterOne = await admin.hlen(idempotency);
    for (let i = 1; i < 60; i += 1) {
      await store.log.emitEvents(ref, [message("x")], { idempotencyKey: `k${i}` });
    }

    const left = await admin.hkeys(idempotency);
    expect(afterOne).toBeGreaterThanOrEqual(602 - 32);
    expect(left.filter((key) => key.startsWith("old")).length).toBeLessThan(40);
    expect(left).toContain("young");
    expect(left).toContain("k0");
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
