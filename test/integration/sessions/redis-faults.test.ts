import { spawn } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, describe, expect, it } from "@jest/globals";
import { Redis } from "ioredis";
import { systemClock } from "../../../src/runtime/clock.ts";
import { codeOf } from "../../../src/runtime/errors.ts";
import { silentLogger } from "../../../src/runtime/logger.ts";
import { createRegistry } from "../../../src/runtime/metrics.ts";
import { Secret } from "../../../src/runtime/secret.ts";
import { createSessionLogMetrics } from "../../../src/sessions/metrics.ts";
import { probeRedis } from "../../../src/sessions/redis/probe.ts";
import {
  createRedisSessionPorts,
  type RedisStoreOptions,
} from "../../../src/sessions/redis/redis-session-store.ts";
import type { Lease, SessionStore } from "../../../src/sessions/session-log.ts";
import {
  claimOne,
  event,
  message,
  newRef,
  newSession,
  snapshotOf,
} from "../../builders/sessions.ts";
import { Cleanups } from "../../cleanups.ts";
import { all } from "../../contracts/session-log/rig.ts";
import { eventually } from "../../eventually.ts";
import { freePort } from "../../servers/free-ports.ts";
import { type RedisServer, startRedis } from "../../servers/redis-server.ts";
import { openRedisStore } from "../../servers/redis-store.ts";
import { startTcpProxy, type TcpProxy } from "../../servers/tcp-proxy.ts";

const cleanups = new Cleanups();
afterEach(async () => await cleanups.run());

async function redisServer(args: string[] = []): Promise<RedisServer> {
  const server = await startRedis({ args });
  cleanups.add(async () => {
    server.resume();
    await server.stop();
  });
  return server;
}

async function connectTo(
  url: string,
  overrides: Partial<RedisStoreOptions> = {},
): Promise<SessionStore> {
  const store = await openRedisStore({ url, ...overrides });
  cleanups.add(async () => await store.close());
  return store;
}

describe("Redis goes away and comes back", () => {
  it("kill -9 of the server under a working holder and a writer loses and doubles nothing", async () => {
    const server = await redisServer();
    const store = await connectTo(server.url);
    const ref = newRef();
    await store.log.createSession(newSession(ref));
    const lease = await claimOne(store, "worker");
    await all(lease.getEvents());
    const stop = new AbortController();
    const acked: { seq: number; id: string }[] = [];
    const holder = (async () => {
      for (let i = 0; !stop.signal.aborted; i += 1) {
        const own = event("tool.result", { i });
        const result = await lease.emitEvents([own], {
          durability: i % 2 === 0 ? "committed" : "applied",
        });
        if (result.status === "ok") acked.push({ seq: result.first, id: own.id });
      }
    })();
    const writer = (async () => {
      for (let i = 0; !stop.signal.aborted; i += 1) {
        const sent = message(`${i}`);
        const { first } = await store.log.emitEvents(ref, [sent], { idempotencyKey: `k${i}` });
        acked.push({ seq: first, id: sent.id });
      }
    })();

    for (let i = 0; i < 3; i += 1) {
      const before = acked.length;
      await eventually("twenty more writes", () => acked.length > before + 20);
      await server.restart();
    }
    const before = acked.length;
    await eventually("twenty more writes", () => acked.length > before + 20);
    stop.abort();
    await Promise.all([holder, writer]);

    const events = await all(store.log.getEvents(ref));
    expect(events.map(({ seq }) => seq)).toEqual(events.map((_, i) => i + 1));
    expect(new Set(events.map(({ id }) => id)).size).toBe(events.length);
    for (const { seq, id } of acked) expect(events[seq - 1]?.id).toBe(id);
    expect(events).toHaveLength(acked.length + 1);
    expect(lease.lost.aborted).toBe(false);
  });

  it("a server that stands still answers late, and what was sent meanwhile is there once", async () => {
    const server = await redisServer();
    const store = await connectTo(server.url);
    const ref = newRef();
    await store.log.createSession(newSession(ref));
    const lease = await claimOne(store, "worker");
    await all(lease.getEvents());

    server.pause();
    const own = lease.emitEvents([event("tool.result")], { durability: "committed" });
    const sent = store.log.emitEvents(ref, [message("x")], { idempotencyKey: "k" });
    await systemClock.sleep(3000);
    server.resume();

    expect(await own).toMatchObject({ status: "ok" });
    expect(await sent).toMatchObject({ first: expect.any(Number) });
    expect(await all(store.log.getEvents(ref))).toHaveLength(3);
  });

  it("after an outage longer than the lease its holder keeps it, however fast another worker is", async () => {
    const server = await redisServer();
    // The holder comes back later than a worker that connects at once, but within the lease time.
    const timings = { ttlMs: 1500, renewMs: 400, pollMs: 20 };
    const holding = await connectTo(server.url, { timings });
    await holding.log.createSession(newSession(newRef()));
    const lease = await claimOne(holding, "holder");
    await all(lease.getEvents());

    await server.kill();
    await systemClock.sleep(timings.ttlMs * 1.5);
    await server.start();
    const other = await connectTo(server.url, { timings });
    const stolen: Lease[] = [];
    const stop = new AbortController();
    const claiming = (async () => {
      const options = { capacity: () => 1 - stolen.length, signal: stop.signal };
      for await (const each of other.queue("other").claim(options)) stolen.push(each);
    })();
    await systemClock.sleep(timings.ttlMs * 2);
    stop.abort();
    await claiming;

    expect(stolen).toEqual([]);
    await lease.barrier();
  });

  it("a write that finds no server is UNAVAILABLE, and one that may have arrived is OUTCOME_UNKNOWN", async () => {
    const server = await redisServer();
    const store = await connectTo(server.url, { writeDeadlineMs: 300 });
    const ref = newRef();
    await store.log.createSession(newSession(ref));

    server.pause();
    const sent = await codeFrom(store.log.emitEvents(ref, [message("x")], { idempotencyKey: "a" }));
    server.resume();
    await server.kill();
    await eventually(
      "the outage",
      async () => (await codeFrom(store.log.wake(ref))) === "UNAVAILABLE",
    );
    const unsent = await codeFrom(
      store.log.emitEvents(ref, [message("x")], { idempotencyKey: "b" }),
    );

    expect([sent, unsent]).toEqual(["OUTCOME_UNKNOWN", "UNAVAILABLE"]);
  });

  it("idle workers claim again within seconds after their connections were cut without a reset", async () => {
    const { proxy, store, direct } = await behindProxy();
    const claimed: Lease[] = [];
    const stop = new AbortController();
    const claiming = (async () => {
      const options = { capacity: () => 9 - claimed.length, signal: stop.signal };
      for await (const lease of store.queue("worker").claim(options)) claimed.push(lease);
    })();
    await systemClock.sleep(500);

    proxy.isolate();
    await systemClock.sleep(3000);
    proxy.heal();
    const ref = newRef();
    await direct.log.createSession(newSession(ref));
    await eventually("a claim", () => claimed.length > 0, { withinMs: 8000 });

    stop.abort();
    await claiming;
    expect(claimed.map((lease) => lease.ref)).toEqual([ref]);
  });

  it("a reader whose subscription was cut sees what it missed", async () => {
    const { proxy, store, direct } = await behindProxy();
    const ref = newRef();
    await direct.log.createSession(newSession(ref));
    const stop = new AbortController();
    const seen: number[] = [];
    const reading = (async () => {
      const options = { after: null, signal: stop.signal };
      for await (const item of store.log.tailEvents(ref, options)) {
        if (item.kind === "event") seen.push(item.event.seq);
      }
    })();
    await eventually("one event", () => seen.length === 1);

    proxy.cut();
    await direct.log.emitEvents(ref, [message("missed")], { idempotencyKey: "k" });
    await eventually("two events", () => seen.length === 2, { withinMs: 12_000 });

    stop.abort();
    await reading;
    expect(seen).toEqual([1, 2]);
  });

  it("while nothing answers, nothing spins", async () => {
    const server = await redisServer();
    const store = await connectTo(server.url);
    const stop = new AbortController();
    const claiming = (async () => {
      const options = { capacity: () => 1, signal: stop.signal };
      for await (const _ of store.queue("worker").claim(options));
    })();
    const listening = (async () => {
      for await (const _ of store.operator.requests(stop.signal));
    })();

    await server.kill();
    const before = process.cpuUsage();
    await systemClock.sleep(3000);
    const used = process.cpuUsage(before);
    stop.abort();
    await Promise.all([claiming, listening]);

    expect((used.user + used.system) / 1000).toBeLessThan(1500);
  });

  it("scripts that the server has forgotten are sent again", async () => {
    const server = await redisServer();
    const store = await connectTo(server.url);
    const ref = newRef();
    await store.log.createSession(newSession(ref));
    const admin = adminOf(server);
    await admin.script("FLUSH");

    await store.log.emitEvents(ref, [message("x")], { idempotencyKey: "k" });

    expect(await all(store.log.getEvents(ref))).toHaveLength(2);
  });
});

describe("commit by replicas", () => {
  it("a committed append waits for the replica, and says so when it does not come", async () => {
    const primary = await redisServer();
    const replica = await redisServer(["--replicaof", "127.0.0.1", `${primary.port}`]);
    const admin = adminOf(primary);
    await eventually(
      "the replica",
      async () => /state=online/.test(await admin.info("replication")),
      { withinMs: 10_000 },
    );
    const registry = createRegistry("test", "0");
    const store = await connectTo(primary.url, {
      commit: { mode: "replicas", n: 1 },
      writeDeadlineMs: 1500,
      metrics: createSessionLogMetrics(registry),
    });
    const ref = newRef();
    await store.log.createSession(newSession(ref));
    const lease = await claimOne(store, "worker");
    await all(lease.getEvents());
    const batches = Array.from({ length: 20 }, () => event("tool.result"));

    await Promise.all(batches.map((each) => lease.emitEvents([each], { durability: "committed" })));
    await lease.barrier();
    const copied = await adminOf(replica).xlen(
      `drover:{test.${ref.id.slice(9, 11)}}:${ref.tenant}:${ref.id}:l`,
    );
    replica.pause();
    const unsure = await codeFrom(
      store.log.emitEvents(ref, [message("x")], { idempotencyKey: "k" }),
    );
    const applied = await store.log.emitEvents(ref, [message("y")], {
      idempotencyKey: "l",
      durability: "applied",
    });
    replica.resume();
    const repeated = await store.log.emitEvents(ref, [message("x")], { idempotencyKey: "k" });

    expect(copied).toBe(21);
    expect(unsure).toBe("OUTCOME_UNKNOWN");
    expect(applied).toMatchObject({ first: 23 });
    expect(repeated).toMatchObject({ first: 22, duplicate: true });
    const metrics = await registry.metrics();
    expect(metrics).toMatch(/drover_log_appends_total\{outcome="ok"\} 21\b/);
    expect(metrics).toMatch(/drover_log_appends_total\{outcome="error"\} 1\b/);
    expect(metrics).not.toMatch(/drover_log_commit_wait_seconds_count 0\b/);
  });
});

describe("the probe at start-up", () => {
  const commit = { mode: "fsync" } as const;

  it("tells product and version of a server that will do", async () => {
    const server = await redisServer();

    const facts = await probeRedis({ url: server.url }, { commit });

    expect(facts).toMatchObject({ unknown: [], version: expect.stringMatching(/^\d+\./) });
  });

  it.each([
    {
      name: "one that evicts",
      args: ["--maxmemory-policy", "allkeys-lru"],
      mode: commit,
      code: "REDIS_EVICTS",
      says: "set it to noeviction",
    },
    {
      name: "one that syncs every second",
      args: ["--appendfsync", "everysec"],
      mode: commit,
      code: "REDIS_DURABILITY_NOT_KEPT",
      says: "appendfsync always",
    },
    {
      name: "one without an append-only file",
      args: ["--appendonly", "no"],
      mode: commit,
      code: "REDIS_DURABILITY_NOT_KEPT",
      says: "appendonly yes",
    },
    {
      name: "one without replicas for commit by replicas",
      args: [],
      mode: { mode: "replicas", n: 1 } as const,
      code: "REDIS_DURABILITY_NOT_KEPT",
      says: "has 0 replicas",
    },
    {
      name: "a replica",
      args: ["--replicaof", "127.0.0.1", "1"],
      mode: commit,
      code: "REDIS_UNSUPPORTED",
      says: "address of the primary",
    },
    {
      name: "a node of a cluster",
      args: ["--cluster-enabled", "yes"],
      mode: commit,
      code: "REDIS_UNSUPPORTED",
      says: "is a node of a Redis Cluster, which Drover cannot use yet",
    },
    {
      name: "one without EVAL",
      args: ["--rename-command", "EVAL", ""],
      mode: commit,
      code: "REDIS_UNSUPPORTED",
      says: "allows EVAL",
    },
    {
      name: "one that asks for a password",
      args: ["--requirepass", "right"],
      mode: commit,
      code: "REDIS_AUTH_FAILED",
      says: "check its password",
    },
  ])("refuses $name and says what to change", async ({ args, mode, code, says }) => {
    const server = await redisServer(args);

    const refused = connectTo(server.url, { commit: mode });

    await expect(refused).rejects.toMatchObject({ code, message: expect.stringContaining(says) });
  });

  it("refuses a Sentinel, and says that it is one", async () => {
    const folder = await mkdtemp(join(tmpdir(), "drover-sentinel-"));
    const [file, port] = [join(folder, "sentinel.conf"), await freePort()];
    await writeFile(file, `port ${port}\nbind 127.0.0.1\ndir ${folder}\n`);
    const sentinel = spawn("redis-server", [file, "--sentinel"], { stdio: "ignore" });
    cleanups.add(async () => {
      sentinel.kill("SIGKILL");
      await rm(folder, { recursive: true });
    });

    const asked = async () => {
      const error: unknown = await connectTo(`redis://127.0.0.1:${port}`).catch((e: unknown) => e);
      return codeOf(error) === "REDIS_UNREACHABLE" ? undefined : error;
    };
    let refused: unknown;
    while (refused === undefined) refused = await asked();

    expect(refused).toMatchObject({
      code: "REDIS_UNSUPPORTED",
      message: expect.stringContaining("is a Sentinel, which holds no data"),
    });
  });

  it("refuses a wrong password without showing it, and takes the right one", async () => {
    const server = await redisServer(["--requirepass", "right"]);

    const refused = connectTo(server.url, { password: new Secret("wrong-marker") });

    await expect(refused).rejects.toMatchObject({ code: "REDIS_AUTH_FAILED" });
    await expect(refused).rejects.not.toMatchObject({
      message: expect.stringContaining("wrong-marker"),
    });
    await connectTo(server.url, { password: new Secret("right") });
  });

  it("takes a user without CONFIG, whose durability cannot be checked", async () => {
    const server = await redisServer();
    await adminOf(server).acl(
      "SETUSER",
      "harness",
      "on",
      ">pw",
      "~drover:*",
      "&drover:*",
      "+@all",
      "-config",
    );

    const facts = await probeRedis(
      { url: server.url, username: "harness", password: new Secret("pw") },
      { commit, poolCode: "test" },
    );

    expect(facts.unknown).toEqual(["appendonly", "appendfsync"]);
  });

  it("refuses a user who may not touch the pool's keys", async () => {
    const server = await redisServer();
    await adminOf(server).acl("SETUSER", "harness", "on", ">pw", "~other:*", "&*", "+@all");

    const refused = probeRedis(
      { url: server.url, username: "harness", password: new Secret("pw") },
      { commit, poolCode: "test" },
    );

    await expect(refused).rejects.toMatchObject({ code: "REDIS_AUTH_FAILED" });
  });

  it("names the address when nobody is there", async () => {
    const server = await redisServer();
    await server.kill();

    const refused = connectTo(server.url);

    await expect(refused).rejects.toMatchObject({
      code: "REDIS_UNREACHABLE",
      message: expect.stringContaining(`127.0.0.1:${server.port}`),
    });
  });

  it("gives up on a server that takes the connection and stays silent", async () => {
    const server = await redisServer();
    server.pause();

    await expect(connectTo(server.url)).rejects.toMatchObject({ code: "REDIS_UNREACHABLE" });
  });
});

describe("ports for proxy and issuer", () => {
  it("read leases, snapshots and bindings with plain reads only, and are UNAVAILABLE without a server", async () => {
    const server = await redisServer();
    const store = await connectTo(server.url);
    const ref = newRef();
    await store.log.createSession(newSession(ref));
    const lease = await claimOne(store, "pod-uid");
    const binding = {
      sessionId: ref.id,
      tenant: ref.tenant,
      hand: "main",
      generation: 1,
      ip: "::1",
    };
    await store.operator.bindSandbox("pod", binding);
    await adminOf(server).acl(
      "SETUSER",
      "proxy",
      "on",
      ">pw",
      "resetkeys",
      "%R~drover:*",
      "+hmget",
      "+get",
      "+info",
      "+client",
    );
    const user = { username: "proxy", password: new Secret("pw"), logger: silentLogger };
    const ports = createRedisSessionPorts({ url: server.url, ...user });
    cleanups.add(async () => ports.close());
    await eventually(
      "the end of the outage",
      async () => (await codeFrom(ports.readBinding("x"))) === undefined,
    );

    expect(await ports.readLease(ref.tenant, ref.id)).toMatchObject({
      token: lease.token,
      owner: "pod-uid",
      terminated: false,
    });
    expect(await ports.readSnapshot(ref.tenant, ref.id)).toEqual(snapshotOf(ref));
    expect(await ports.readBinding("pod")).toEqual(binding);
    expect(await ports.readLease("x:y", "no id")).toBeNull();
    await server.kill();
    expect(await codeFrom(ports.readLease(ref.tenant, ref.id))).toBe("UNAVAILABLE");
  });
});

async function behindProxy(): Promise<{
  proxy: TcpProxy;
  store: SessionStore;
  direct: SessionStore;
}> {
  const server = await redisServer();
  const proxy = await startTcpProxy(server.port);
  cleanups.add(async () => await proxy.close());
  const store = await connectTo(`redis://127.0.0.1:${proxy.port}`);
  return { proxy, store, direct: await connectTo(server.url) };
}

function adminOf(server: RedisServer): Redis {
  const admin = new Redis(server.url, { retryStrategy: () => null });
  admin.on("error", () => {});
  cleanups.add(async () => admin.disconnect());
  return admin;
}

async function codeFrom(work: Promise<unknown>): Promise<string | undefined> {
  return await work.then(
    () => undefined,
    (error: unknown) => codeOf(error),
  );
}
