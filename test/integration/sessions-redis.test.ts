import { afterAll, beforeAll } from "@jest/globals";
import { Redis } from "ioredis";
import { systemClock } from "../../src/runtime/clock.ts";
import { silentLogger } from "../../src/runtime/logger.ts";
import { systemRng } from "../../src/runtime/rng.ts";
import { connectRedisBackend } from "../../src/sessions/redis/redis-session-store.ts";
import { assembleStore } from "../../src/sessions/store/session-store.ts";
import { CONTRACT_POOLS, CONTRACT_TIMINGS, describeSessionLog } from "../contracts/session-log.ts";
import { type RedisServer, startRedis } from "../fakes/redis-server.ts";

let server: RedisServer;

beforeAll(async () => {
  server = await startRedis();
});

afterAll(async () => {
  await server.stop();
});

describeSessionLog("redis", async () => {
  const admin = new Redis(server.url, { retryStrategy: () => null });
  await admin.flushall();
  const options = {
    url: server.url,
    commit: { mode: "fsync" },
    pools: CONTRACT_POOLS,
    clock: systemClock,
    rng: systemRng,
    logger: silentLogger,
  } as const;
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
