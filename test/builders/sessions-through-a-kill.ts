import type { RedisAddress } from "../../src/sessions/redis/connection.ts";
import { CONTRACT_POOLS } from "../contracts/session-log/rig.ts";
import type { RedisServer } from "../servers/redis-server.ts";
import { openRedisStore } from "../servers/redis-store.ts";
import { message, newRef, newSession } from "./sessions.ts";

/** Makes ten sessions as the operator, kills the server, and tells the last seq of each afterwards. */
export async function tenSessionsThroughKill(
  server: RedisServer,
  operator: RedisAddress,
): Promise<(number | undefined)[]> {
  const store = await openRedisStore({ ...operator, pools: CONTRACT_POOLS });
  const refs = Array.from({ length: 10 }, () => newRef());
  for (const ref of refs) {
    await store.operator.createSession(newSession(ref));
    await store.operator.emitEvents(ref, [message("more")], { idempotencyKey: "k" });
  }
  await server.restart();
  try {
    return (await store.operator.statusOf(refs)).map((state) => state?.seq);
  } finally {
    await store.close();
  }
}
