import { systemClock } from "../../src/runtime/clock.ts";
import { silentLogger } from "../../src/runtime/logger.ts";
import { systemRng } from "../../src/runtime/rng.ts";
import {
  connectRedisSessionStore,
  type RedisStoreOptions,
} from "../../src/sessions/redis/redis-session-store.ts";
import type { SessionStore } from "../../src/sessions/session-log.ts";
import { TEST_POOL } from "../builders/sessions.ts";

/** The store of a pod on a real Redis: for TEST_POOL and with the usual times, unless told otherwise. */
export async function openRedisStore(
  options: Pick<RedisStoreOptions, "url"> & Partial<RedisStoreOptions>,
): Promise<SessionStore> {
  return await connectRedisSessionStore({
    commit: { mode: "fsync" },
    pools: [TEST_POOL],
    clock: systemClock,
    rng: systemRng,
    logger: silentLogger,
    ...options,
  });
}
