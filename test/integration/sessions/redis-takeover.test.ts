import { afterEach, describe, expect, it } from "@jest/globals";
import { Redis } from "ioredis";
import { systemClock } from "../../../src/runtime/clock.ts";
import { sessionKeys } from "../../../src/sessions/keys.ts";
import type { Lease, SessionStore } from "../../../src/sessions/session-log.ts";
import { newRef, newSession } from "../../builders/sessions.ts";
import { Cleanups } from "../../cleanups.ts";
import { eventually } from "../../eventually.ts";
import { type RedisServer, startRedis } from "../../servers/redis-server.ts";
import { openRedisStore } from "../../servers/redis-store.ts";

const TIMINGS = { ttlMs: 800, renewMs: 200, pollMs: 50 };
const cleanups = new Cleanups();
afterEach(async () => await cleanups.run());

async function redisServer(): Promise<RedisServer> {
  const server = await startRedis();
  cleanups.add(async () => {
    server.resume();
    await server.stop();
  });
  return server;
}

async function connectTo(server: RedisServer): Promise<SessionStore> {
  const store = await openRedisStore({ url: server.url, timings: TIMINGS });
  cleanups.add(async () => await store.close());
  return store;
}

/** Claims all it can get until it is stopped. */
function claiming(store: SessionStore, worker: string) {
  const stop = new AbortController();
  const leases: Lease[] = [];
  const done = (async () => {
    const options = { capacity: () => 100, signal: stop.signal };
    for await (const lease of store.queue(worker).claim(options)) leases.push(lease);
  })();
  cleanups.add(async () => {
    stop.abort();
    await done;
  });
  return leases;
}

describe("a server that stands still", () => {
  it("lets no lease be taken afterwards that its holder renews", async () => {
    const server = await redisServer();
    const [holding, other] = [await connectTo(server), await connectTo(server)];
    const refs = Array.from({ length: 8 }, () => newRef());
    for (const ref of refs) await holding.log.createSession(newSession(ref));
    const held = claiming(holding, "holder");
    await eventually("all leases", () => held.length === refs.length);
    const taken = claiming(other, "other");
    await systemClock.sleep(TIMINGS.ttlMs * 2);

    // Longer than the life of a lease, shorter than what breaks a connection.
    for (let i = 0; i < 4; i += 1) {
      server.pause();
      await systemClock.sleep(1300);
      server.resume();
      await systemClock.sleep(1200);
    }

    expect(taken.map(({ ref }) => ref.id)).toEqual([]);
    expect(held.filter(({ lost }) => lost.aborted)).toEqual([]);
    for (const lease of held) await lease.barrier();
  });

  it("does not keep the lease of a dead worker from the others", async () => {
    const server = await redisServer();
    const [holding, other] = [await connectTo(server), await connectTo(server)];
    await holding.log.createSession(newSession(newRef()));
    const held = claiming(holding, "holder");
    await eventually("a lease", () => held.length === 1);
    const taken = claiming(other, "other");
    await systemClock.sleep(TIMINGS.ttlMs * 2);

    server.pause();
    await systemClock.sleep(1300);
    await holding.close();
    server.resume();

    await eventually("a takeover", () => taken.length === 1);
    expect(taken[0]).toMatchObject({ epoch: 2, previousOwner: "holder", takeover: 1 });
  });
});

describe("a log of an earlier version", () => {
  it("whose meta hash lacks the newer fields is claimed, taken over and set aside like any other", async () => {
    const server = await redisServer();
    const store = await connectTo(server);
    const ref = newRef();
    await store.log.createSession(newSession(ref));
    const { meta, due, member } = sessionKeys(ref);
    const admin = new Redis(server.url, { retryStrategy: () => null });
    cleanups.add(async () => admin.disconnect());
    await admin.hdel(meta, "kl", "dt", "wt", "qr");
    // What the claim of an earlier version leaves: a token that names no incarnation.
    const token = "1.0198c0de7a1c7d1f9d4a5d0c6f3b2a10";
    await admin.hset(meta, "tok", token, "ep", "1", "own", "old-pod", "tk", "4");
    await admin.zadd(due, Date.now() - 1, member);

    const taken = claiming(store, "new");

    await eventually(
      "the quarantine",
      async () => (await store.log.getSession(ref))?.head.status === "quarantined",
    );
    expect(taken).toEqual([]);
  });
});
