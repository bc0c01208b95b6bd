import { afterEach, describe, expect, it } from "@jest/globals";
import { Redis } from "ioredis";
import { sessionKeys } from "../../../src/sessions/keys.ts";
import type {
  Lease,
  NewEvent,
  SessionRef,
  SessionStore,
} from "../../../src/sessions/session-log.ts";
import { claimOne, event, message, newRef, newSession } from "../../builders/sessions.ts";
import { Cleanups } from "../../cleanups.ts";
import { all } from "../../contracts/session-log/rig.ts";
import { eventually } from "../../eventually.ts";
import { startRedis } from "../../servers/redis-server.ts";
import { openRedisStore } from "../../servers/redis-store.ts";

const cleanups = new Cleanups();
afterEach(async () => await cleanups.run());

async function setUp(): Promise<{ store: SessionStore; admin: Redis }> {
  const server = await startRedis();
  cleanups.add(async () => await server.stop());
  const store = await openRedisStore({
    url: server.url,
    timings: { ttlMs: 60_000, renewMs: 20_000, pollMs: 20 },
  });
  cleanups.add(async () => await store.close());
  const admin = new Redis(server.url);
  cleanups.add(async () => admin.disconnect());
  return { store, admin };
}

/** The session's keys as they are now. What is called later puts them back, as a failover does. */
async function savePoint(admin: Redis, ref: SessionRef): Promise<() => Promise<void>> {
  const { meta, log, idempotency } = sessionKeys(ref);
  const saved = await Promise.all(
    [meta, log, idempotency].map(async (key) => [key, await admin.dumpBuffer(key)] as const),
  );
  return async () => {
    for (const [key, dump] of saved) {
      await admin.del(key);
      if (dump !== null) await admin.restore(key, 0, dump, "REPLACE");
    }
  };
}

/** The session's lease, whose holder has read all of it. */
async function claim(store: SessionStore): Promise<Lease> {
  const lease = await claimOne(store);
  await all(lease.getEvents());
  return lease;
}

const say = (store: SessionStore, ref: SessionRef, said: NewEvent) =>
  store.log.emitEvents(ref, [said], { idempotencyKey: said.id });

describe("a failover after which the same events stand on another beginning", () => {
  it("a reader is told where the logs part, and shown what follows now", async () => {
    const { store, admin } = await setUp();
    const ref = newRef();
    await store.log.createSession(newSession(ref));
    const shown: string[] = [];
    const stop = new AbortController();
    cleanups.add(async () => stop.abort());
    void (async () => {
      for await (const item of store.log.tailEvents(ref, { after: null, signal: stop.signal })) {
        if (item.kind === "event") shown.push(item.event.type);
        if (item.kind === "rewound") shown.push(`rewound to ${item.lastGood.seq}`);
      }
    })();
    const goBack = await savePoint(admin, ref);
    const last = message("sent again");
    await say(store, ref, event("sandbox.lost"));
    await say(store, ref, last);
    await eventually("three events", () => shown.length === 3);

    await goBack();
    await say(store, ref, event("sandbox.provisioned"));
    await say(store, ref, last);
    await eventually("what follows the failover", () => shown.length === 6);

    expect(shown.slice(3)).toEqual(["rewound to 1", "sandbox.provisioned", "user.message"]);
  }, 30_000);

  it("the holder's next write is refused, though the event it read last has the same id and place", async () => {
    const { store, admin } = await setUp();
    const ref = newRef();
    await store.log.createSession(newSession(ref));
    const lease = await claim(store);
    const goBack = await savePoint(admin, ref);
    const [first, second, last] = [message("keep it"), message("delete it"), message("go on")];
    for (const said of [first, second, last]) await say(store, ref, said);
    await all(lease.getEvents({ after: lease.position().seq }));

    await goBack();
    for (const said of [second, first, last]) await say(store, ref, said);

    expect(lease.position()).toMatchObject({ seq: 4, id: last.id });
    await expect(lease.emitEvents([event("tool.result")])).rejects.toMatchObject({
      code: "SESSION_REWOUND",
    });
    await expect(lease.barrier()).rejects.toMatchObject({ code: "SESSION_REWOUND" });
    expect(await all(store.log.getEvents(ref))).toHaveLength(4);
  }, 30_000);
});

describe("a log of a version that knew no chain values", () => {
  /** As that version wrote it: no value in the entries, none in the meta hash. */
  async function forget(admin: Redis, ref: SessionRef): Promise<void> {
    const { meta, log } = sessionKeys(ref);
    const entries = await admin.xrange(log, "-", "+");
    await admin.del(log);
    for (const [id, fields] of entries) await admin.xadd(log, id, ...fields.slice(0, 10));
    await admin.hdel(meta, "ch");
  }

  it("is read and written on; its values begin at the next event", async () => {
    const { store, admin } = await setUp();
    const ref = newRef();
    await store.log.createSession(newSession(ref));
    await say(store, ref, message("second"));
    await forget(admin, ref);
    const lease = await claim(store);

    expect(lease.position()).toMatchObject({ seq: 2, chain: "" });
    await lease.emitEvents([event("tool.result")]);
    await lease.barrier();
    const chains = (await all(store.log.getEvents(ref))).map(({ chain }) => chain);
    expect(chains).toEqual(["", "", expect.stringMatching(/^[0-9a-f]{16}$/)]);
  });

  it("goes on beside processes of that version, which leave the meta hash's value as it was", async () => {
    const { store, admin } = await setUp();
    const ref = newRef();
    await store.log.createSession(newSession(ref));
    const { meta, log } = sessionKeys(ref);
    await admin.xadd(log, "2-0", "i", "e2", "t", "x", "e", "0", "ts", "1", "d", "{}");
    await admin.hset(meta, "seq", "2", "lid", "e2");
    const lease = await claim(store);

    expect((await store.log.getSession(ref))?.head.pos).toEqual({ seq: 2, id: "e2", chain: "" });
    await lease.emitEvents([event("tool.result")]);
    expect(lease.position()).toMatchObject({ seq: 3, chain: expect.stringMatching(/^\w{16}$/) });
  });
});
