import { afterAll, beforeAll, describe, expect, it } from "@jest/globals";
import * as fc from "fast-check";
import { Redis } from "ioredis";
import { bindingKey, type SessionKeys, sessionKeys } from "../../src/sessions/keys.ts";
import { REDIS_PROCESSES, type RedisProcess, userLine } from "../../src/sessions/redis/users.ts";
import { event, newRef, newSession, TEST_POOL } from "../builders/sessions.ts";
import { openRedisStore } from "../servers/redis-store.ts";
import { type RedisWithUsers, startRedisWithUsers } from "../servers/redis-users.ts";
import { newMarker } from "./sweeper.ts";

/**
 * T41: a process that was taken over has the password of its Redis user, and tries what its work
 * does not need. Redis itself must refuse; our code is not asked.
 */

const MARKER = newMarker("T41");
const ref = newRef();
const keys: SessionKeys = sessionKeys(ref);
const BINDING = bindingKey("pod-1");
const CREDENTIALS = "drover:px:cred:team-a:main";
const PIN = "drover:px:pin:team-a:docs";
const AUDIT = "drover:px:audit";

let server: RedisWithUsers;
let users: Record<RedisProcess, Redis>;

beforeAll(async () => {
  server = await startRedisWithUsers();
  users = {
    operator: server.connect("operator"),
    harness: server.connect("harness"),
    proxy: server.connect("proxy"),
    edge: server.connect("edge"),
  };
  const store = await openRedisStore({ ...server.as("operator") });
  // The second is over 64 KiB, so it lies beside the stream.
  const events = [MARKER, MARKER.padEnd(80_000)].map((text) => event("user.message", { text }));
  await store.log.createSession(newSession(ref, { events }));
  const binding = { tenant: ref.tenant, sessionId: ref.id, hand: "main", generation: 1, ip: "::1" };
  await store.operator.bindSandbox("pod-1", binding);
  await store.close();
});

afterAll(async () => {
  await server.stop();
});

/** What Redis says to one command; a refusal inside a script has no code of its own in Redis 7. */
async function tried(user: RedisProcess, command: readonly string[]): Promise<string> {
  const [name = "", ...args] = command;
  try {
    const reply: unknown = await users[user].call(name, ...args);
    return `allowed: ${JSON.stringify(reply)?.slice(0, 200)}`;
  } catch (error) {
    const message = error instanceof Error || Error.isError(error) ? String(error) : "";
    return /NOPERM|ACL failure in script|can't (run|access)/.test(message) ? "refused" : message;
  }
}

const read = (command: string, key: string, ...args: string[]) => [
  "EVAL",
  `return redis.call('${command}', ARGV[1]${args.map((arg) => `, '${arg}'`).join("")})`,
  "1",
  keys.meta,
  key,
];

describe("as control, each user does its own work", () => {
  it("the operator creates, binds and reads the state", async () => {
    expect(await users.operator.hmget(keys.meta, "seq", "st")).toEqual(["2", "created"]);
    expect(await users.operator.hgetall(keys.state)).toHaveProperty([keys.member]);
  });

  it("the harness reads the log and appends to it", async () => {
    expect(JSON.stringify(await users.harness.xrange(keys.log, "-", "+"))).toContain(MARKER);
    expect(await users.harness.get(keys.snapshot)).toContain(ref.id);
  });

  it("the proxy reads lease and snapshot, reports and pins; the operator reads the report and keeps checkpoints", async () => {
    expect(await users.proxy.hmget(keys.meta, "tok", "ep")).toEqual(["", "0"]);
    expect(await users.proxy.get(keys.snapshot)).toContain(ref.id);
    await users.proxy.hset(CREDENTIALS, "docs", "{}");
    await users.proxy.expire(CREDENTIALS, 3600);
    expect(await users.proxy.set(PIN, "1", "EX", 3600, "NX")).toBe("OK");
    expect(await users.proxy.get(PIN)).toBe("1");
    await users.operator.xadd(AUDIT, "MAXLEN", "~", 10, "*", "checkpoint", "signed");
    expect(await users.operator.hgetall(CREDENTIALS)).toEqual({ docs: "{}" });
  });

  it("the edge reads which sandbox is bound", async () => {
    expect(await users.edge.get(BINDING)).toContain(ref.id);
    expect(await users.edge.hmget(keys.meta, "tok")).toEqual([""]);
  });
});

describe("nobody", () => {
  const everywhere = [
    ["KEYS", "*"],
    ["SCAN", "0"],
    ["RANDOMKEY"],
    ["FLUSHALL"],
    ["FLUSHDB"],
    ["CONFIG", "SET", "requirepass", ""],
    ["CONFIG", "REWRITE"],
    ["DEBUG", "SLEEP", "0"],
    ["ACL", "LIST"],
    ["ACL", "SETUSER", "harness", "+@all"],
    ["CLIENT", "LIST"],
    ["CLIENT", "KILL", "TYPE", "normal"],
    ["MONITOR"],
    ["SHUTDOWN", "NOSAVE"],
    ["REPLICAOF", "127.0.0.1", "1"],
    ["MODULE", "LIST"],
    ["FUNCTION", "LIST"],
    ["SCRIPT", "FLUSH"],
    ["SLOWLOG", "GET"],
    ["MIGRATE", "127.0.0.1", "1", keys.log, "0", "1"],
    ["DUMP", keys.log],
    ["COPY", keys.log, keys.meta],
    ["RENAME", keys.log, keys.meta],
    ["SORT", keys.log],
    ["OBJECT", "ENCODING", keys.log],
    ["SUBSCRIBE", "*"],
    ["PSUBSCRIBE", "*"],
    ["PUBLISH", keys.notify, "1"],
    ["XREAD", "STREAMS", keys.log, "0"],
    ["XTRIM", keys.log, "MAXLEN", "0"],
    ["XDEL", keys.log, "1-0"],
    ["XGROUP", "CREATE", keys.log, "g", "0"],
    ["GET", "somebody-elses-key"],
    ["SET", "somebody-elses-key", "1"],
  ];

  it.each(REDIS_PROCESSES.flatMap((user) => everywhere.map((command) => ({ user, command }))))(
    "$user: $command.0 $command.1 is refused",
    async ({ user, command }) => {
      expect(await tried(user, command)).toBe("refused");
    },
  );

  it("gets in without a user", async () => {
    const { port } = server;
    const options = {
      port,
      protocol: 2,
      enableReadyCheck: false,
      disableClientInfo: true,
    } as const;
    const connection = new Redis(options);

    await expect(connection.get(keys.snapshot)).rejects.toThrow(/NOAUTH/);
    connection.disconnect();
  });
});

const FOREIGN: Record<RedisProcess, string[][]> = {
  operator: [
    ["XRANGE", keys.log, "-", "+"],
    ["XREVRANGE", keys.log, "+", "-"],
    ["HGETALL", keys.payloads],
    ["HMGET", keys.payloads, "a"],
    ["HSCAN", keys.payloads, "0"],
    ["GET", keys.preview],
    ["SSUBSCRIBE", keys.deltas],
    read("XRANGE", keys.log, "-", "+"),
    read("HGETALL", keys.payloads),
    ["SET", CREDENTIALS, "1"],
    ["HSET", CREDENTIALS, "docs", "ok"],
    ["DEL", CREDENTIALS],
    ["XRANGE", AUDIT, "-", "+"],
    ["DEL", AUDIT],
    ["SET", AUDIT, "1"],
    ["SET", PIN, "1"],
  ],
  harness: [
    ["SET", keys.snapshot, "{}"],
    ["DEL", keys.snapshot],
    ["HSET", keys.snapshot, "vaults", "[]"],
    ["HSET", keys.bound, "pod-2", "1"],
    ["EVAL", "return redis.call('HSET', ARGV[1], 'a', '1')", "1", keys.meta, keys.snapshot],
    ["EVAL", "return redis.call('SET', KEYS[1], '{}')", "1", keys.snapshot],
    ["EVAL", "return redis.call('SET', ARGV[1], '{}')", "1", keys.meta, keys.snapshot],
    ["DEL", keys.log],
    ["GET", BINDING],
    ["SET", BINDING, "{}"],
    ["HGETALL", CREDENTIALS],
    ["HGET", CREDENTIALS, "docs"],
    ["HSET", CREDENTIALS, "docs", "ok"],
    ["SET", PIN, "1"],
    ["GET", PIN],
    ["XRANGE", AUDIT, "-", "+"],
    ["XADD", AUDIT, "*", "a", "1"],
    ["HSET", `drover:cfg:${TEST_POOL.code}`, "commit", "{}"],
    ["CONFIG", "GET", "requirepass"],
    ["SSUBSCRIBE", "__keyspace@0__:*"],
  ],
  proxy: [
    ["XRANGE", keys.log, "-", "+"],
    ["XADD", keys.log, "*", "a", "1"],
    ["HGETALL", keys.meta],
    ["HSET", keys.meta, "tok", "mine"],
    ["HMGET", keys.payloads, "a"],
    ["HMGET", keys.hands, "a"],
    ["SET", keys.snapshot, "{}"],
    ["SET", keys.meta, "1"],
    ["SMEMBERS", keys.bound],
    ["GET", BINDING],
    ["SET", BINDING, "{}"],
    ["HGETALL", CREDENTIALS],
    ["HMGET", CREDENTIALS, "docs"],
    ["DEL", CREDENTIALS],
    ["XRANGE", AUDIT, "-", "+"],
    ["XADD", AUDIT, "MAXLEN", "0", "*", "a", "1"],
    ["SET", AUDIT, "1"],
    ["DEL", AUDIT],
    ["DEL", PIN],
    ["EVAL", "return 1", "0"],
    ["EVALSHA", "0".repeat(40), "0"],
    read("XRANGE", keys.log, "-", "+"),
    ["SSUBSCRIBE", keys.deltas],
    ["SPUBLISH", keys.notify, "1"],
    ["CONFIG", "GET", "requirepass"],
    ["BLPOP", keys.bell, "1"],
  ],
  edge: [
    ["XRANGE", keys.log, "-", "+"],
    ["HSET", keys.meta, "tok", "mine"],
    ["HMGET", keys.payloads, "a"],
    ["SET", BINDING, "{}"],
    ["DEL", BINDING],
    ["HGETALL", CREDENTIALS],
    ["GET", PIN],
    ["SET", PIN, "1"],
    ["XRANGE", AUDIT, "-", "+"],
    ["EVAL", "return 1", "0"],
    ["SSUBSCRIBE", keys.deltas],
    ["CONFIG", "GET", "requirepass"],
  ],
};

describe.each(REDIS_PROCESSES)("the %s", (user) => {
  it.each(FOREIGN[user].map((command) => ({ command, name: command.slice(0, 3).join(" ") })))(
    "$name is refused",
    async ({ command }) => {
      expect(await tried(user, command)).toBe("refused");
    },
  );
});

it("a user that could do more before can do no more than its work once it is set up anew", async () => {
  const admin = server.connect("admin");
  await admin.call("ACL", "SETUSER", "edge", "~drover:*", "&drover:*", "+@all");

  const [, ...rule] = userLine("edge", ">edge").split(" ");
  await admin.call("ACL", "SETUSER", ...rule);

  const again = server.connect("edge");
  await expect(again.keys("*")).rejects.toThrow(/NOPERM/);
  await expect(again.get(PIN)).rejects.toThrow(/NOPERM/);
  expect(await again.get(BINDING)).toContain(ref.id);
});

describe("keys cannot reach into another tenant", () => {
  /** What any tenant may hold in common with another: the tables of the partition. */
  const SHARED = new Set(
    "prefix due bell hands hbell state sbell arch workers alive".split(
      " ",
    ) as (keyof SessionKeys)[],
  );
  const ownKeys = (of: SessionKeys) =>
    Object.entries(of).flatMap(([name, key]) =>
      SHARED.has(name as keyof SessionKeys) ? [] : [String(key)],
    );
  const hostile = fc.oneof(
    fc.constantFrom("team-a", "team-b", "q", "s", "cfg", "px", "m", "a", "a-1"),
    fc.stringMatching(/^[-a-z0-9:{}.*?[\]\\ \n]{0,12}$/),
    fc.string({ maxLength: 12 }),
  );
  const id = fc.oneof(
    fc.constantFrom(ref.id, newRef().id),
    fc.stringMatching(/^sesn_[0-9a-z]{4}[0-9a-f]{2}_[0-9a-hjkmnp-tv-z]{26}$/),
    fc.tuple(fc.constant(ref.id), hostile).map(([start, rest]) => `${start}:${rest}`),
  );
  const session = fc.record({ tenant: hostile, id });

  it("whatever is asked for is refused, or has keys that no other tenant's session has", () => {
    const keysOf = (asked: { tenant: string; id: string }) => {
      try {
        return sessionKeys(asked);
      } catch {
        return null;
      }
    };
    let compared = 0;
    fc.assert(
      fc.property(session, session, (one, other) => {
        const [mine, theirs] = [keysOf(one), keysOf(other)];
        if (mine === null || theirs === null || one.tenant === other.tenant) return;
        compared += 1;
        const all = new Set([...ownKeys(theirs), ...Object.values(theirs)]);
        expect(ownKeys(mine).filter((key) => all.has(key))).toEqual([]);
        for (const key of ownKeys(mine)) expect(key.split(":")).toContain(one.tenant);
      }),
      { numRuns: 5000 },
    );
    expect(compared).toBeGreaterThan(100);
  });
});
