import { afterAll, beforeAll, describe, expect, it } from "@jest/globals";
import type { Redis } from "ioredis";
import { systemClock } from "../../../src/runtime/clock.ts";
import { silentLogger } from "../../../src/runtime/logger.ts";
import { systemRng } from "../../../src/runtime/rng.ts";
import { Secret } from "../../../src/runtime/secret.ts";
import type { LogBackend } from "../../../src/sessions/backend.ts";
import { probeRedis } from "../../../src/sessions/redis/probe.ts";
import {
  connectRedisBackend,
  createRedisSessionPorts,
  type RedisSessionPorts,
} from "../../../src/sessions/redis/redis-session-store.ts";
import type { RedisProcess } from "../../../src/sessions/redis/users.ts";
import { assembleStore } from "../../../src/sessions/store/session-store.ts";
import { message, newRef, newSession } from "../../builders/sessions.ts";
import { tenSessionsThroughKill } from "../../builders/sessions-through-a-kill.ts";
import { CONTRACT_POOLS } from "../../contracts/session-log/rig.ts";
import { describeSessionLog } from "../../contracts/session-log/suite.ts";
import { type RedisWithUsers, startRedisWithUsers } from "../../servers/redis-users.ts";

/** The whole session log, each verb sent by the process that sends it in production. */

let server: RedisWithUsers;
let admin: Redis;

beforeAll(async () => {
  server = await startRedisWithUsers();
  admin = server.connect("admin");
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

/** What only a harness does; all else is the operator's, but for what is read of leases. */
const HARNESS_VERBS = new Set<PropertyKey>([
  "appendLeased",
  "barrier",
  "release",
  "claim",
  "renew",
  "settle",
  "read",
  "watch",
  "publishDelta",
  "waitForWork",
  "heartbeat",
  "workers",
]);
const PORT_VERBS = new Set<PropertyKey>(["readLease", "readBinding"]);

/** The operator does what both may do; leases and bindings are read as the edge does it. */
function compose(parts: {
  harness: LogBackend;
  operator: LogBackend;
  ports: ReturnType<typeof createRedisSessionPorts>;
}): LogBackend {
  const { harness, operator, ports } = parts;
  const close = async () => {
    await Promise.all([harness.close(), operator.close()]);
    ports.close();
  };
  const chosen = (verb: PropertyKey): object => {
    if (HARNESS_VERBS.has(verb)) return harness;
    return PORT_VERBS.has(verb) ? ports : operator;
  };
  return new Proxy(operator, {
    get(_target, verb) {
      if (verb === "close") return close;
      const owner = chosen(verb);
      const method: unknown = Reflect.get(owner, verb);
      return typeof method === "function" ? method.bind(owner) : method;
    },
  });
}

const open = (process: "harness" | "operator") =>
  connectRedisBackend({ ...server.as(process), ...common });

describeSessionLog("redis with users", async (timings) => {
  await admin.flushall();
  const parts = {
    harness: await open("harness"),
    operator: await open("operator"),
    ports: createRedisSessionPorts({ ...server.as("edge"), logger: silentLogger }),
  };
  const backend = compose(parts);
  const store = assembleStore({ ...common, backend, timings });
  return {
    store,
    backend,
    pass: (ms: number) => systemClock.sleep(ms),
    traces: async (ref) => (await admin.keys("*")).filter((key) => key.includes(ref.id)),
    close: () => store.close(),
  };
});

it("a harness, too, appends to a session that it does not hold, wakes it and reads what it is", async () => {
  const [operator, harness] = [await open("operator"), await open("harness")];
  const ref = newRef();
  await operator.create(newSession(ref, { events: [], wake: false }), "gen");

  const op = { key: "k", wake: false, events: [message("one")] };
  expect(await harness.append(ref, op, "committed")).toMatchObject({ word: "OK" });
  expect(await harness.append(ref, op, "committed")).toMatchObject({ word: "DUP" });
  expect(await harness.wake(ref)).toEqual({ word: "OK" });
  expect(await harness.head(ref)).toMatchObject({ pos: { seq: 1 } });
  expect(await harness.snapshotOf(ref)).toMatchObject({ sessionId: ref.id });
  await Promise.all([operator.close(), harness.close()]);
});

it("proxies keep pins and what they read, the edge the last; the operator reads that and keeps checkpoints", async () => {
  const ports = (process: RedisProcess) =>
    createRedisSessionPorts({ ...server.as(process), logger: silentLogger });
  const [proxy, edge, operator] = [ports("proxy"), ports("edge"), ports("operator")];
  await Promise.all([proxy, edge, operator].map(untilConnected));
  const pins = { tenant: "team-a", revision: "r1", server: "00" };
  const report = (entry: string) => ({ tenant: "team-a", vault: "main", entry });
  const read = { ok: true, reason: "Resolved", message: "", version: "1", ts: 1 };

  expect(await proxy.readPins(pins)).toBeNull();
  expect(await proxy.keepPins(pins, { search: "hash" })).toEqual({ search: "hash" });
  await operator.appendCheckpoint("signed");
  await proxy.writeCredentialReport(report("docs"), read);
  await edge.writeCredentialReport(report("git"), read);
  const reports = await operator.readCredentialReports("team-a", "main");

  expect([...reports.keys()].toSorted()).toEqual(["docs", "git"]);
  for (const each of [proxy, edge, operator]) each.close();
});

/** Until then its verbs reject. */
async function untilConnected(ports: RedisSessionPorts): Promise<void> {
  const { tenant, id } = newRef();
  for (let tries = 0; tries < 200; tries += 1) {
    const read = await ports.readLease(tenant, id).catch(() => undefined);
    if (read === null) return;
    await systemClock.sleep(25);
  }
  throw new Error("the connection does not come up");
}

describe("the probe at the start", () => {
  it("the operator finds out everything about the server", async () => {
    const facts = await probeRedis(server.as("operator"), { commit: common.commit });

    expect(facts.unknown).toEqual([]);
  });

  it("a harness may not ask for settings, among which are passwords, and starts all the same", async () => {
    const facts = await probeRedis(server.as("harness"), { commit: common.commit });

    expect(facts.unknown).toEqual(["appendonly", "appendfsync"]);
  });

  it.each([
    { rule: "user default off", right: "'hset' command" },
    { rule: "user default on resetpass ~* +@read", right: "'hset' command" },
    { rule: "user default on nopass ~app:* +@all", right: "access the 'drover:{prob.00}" },
    { rule: "user default on resetpass ~drover:{* +@all", right: "access the 'drover:s:{prob.00}" },
  ])("a server that would drop its logs at the next start is refused ($rule)", async (row) => {
    const losing = await startRedisWithUsers({ defaultUser: row.rule });
    try {
      for (const process of ["operator", "harness"] as const) {
        const refused = probeRedis(losing.as(process), common);
        await expect(refused).rejects.toMatchObject({ code: "REDIS_DURABILITY_NOT_KEPT" });
        await expect(refused).rejects.toThrow(row.right);
        await expect(refused).rejects.toThrow("run ACL SETUSER default on resetpass ~* &* +@all");
      }
      // What the message says is what helps.
      const cure = ["SETUSER", "default", "on", "resetpass", "~*", "&*", "+@all"];
      await losing.connect("admin").call("ACL", ...cure);
      const facts = await probeRedis(losing.as("operator"), common);
      expect(facts.unknown).toEqual([]);
    } finally {
      await losing.stop();
    }
  });

  it("without an append-only file nothing depends on the default user", async () => {
    const args = ["--appendonly", "no"];
    const memory = await startRedisWithUsers({ defaultUser: "user default off", args });
    const commit = { mode: "provider" } as const;
    try {
      await expect(probeRedis(memory.as("operator"), { commit })).resolves.toMatchObject({
        unknown: [],
      });
    } finally {
      await memory.stop();
    }
  });

  it("who may not ask for the default user's rights says so, and starts", async () => {
    const user = "user old on nopass ~drover:* &* +@all -acl";
    const forbidding = await startRedisWithUsers({ defaultUser: `user default off\n${user}` });
    try {
      const facts = await probeRedis(
        { url: forbidding.url, username: "old", password: new Secret("x") },
        common,
      );
      expect(facts.unknown).toEqual(["rights of the default user"]);
    } finally {
      await forbidding.stop();
    }
  });

  it("a password of another process is refused", async () => {
    const wrong = { ...server.as("harness"), password: server.as("operator").password };

    await expect(probeRedis(wrong, { commit: common.commit })).rejects.toMatchObject({
      code: "REDIS_AUTH_FAILED",
      message: expect.stringContaining('refuses user "harness"'),
    });
  });
});

it("kill -9 of the server under ten sessions loses none of them", async () => {
  const own = await startRedisWithUsers();
  try {
    const seqs = await tenSessionsThroughKill(own, own.as("operator"));
    expect(seqs).toEqual(Array.from({ length: 10 }, () => 2));
  } finally {
    await own.stop();
  }
});

it("nothing was asked that a user may not, but for the settings", async () => {
  const denied = (await admin.call("ACL", "LOG", "128")) as string[][];

  const of = (entry: string[], field: string) => entry[entry.indexOf(field) + 1];
  const refused = denied.map((entry) => `${of(entry, "username")} ${of(entry, "object")}`);
  expect(new Set(refused)).toEqual(new Set(["harness config|get", "harness auth"]));
});
