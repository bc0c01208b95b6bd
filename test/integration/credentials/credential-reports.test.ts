import { afterAll, beforeAll, beforeEach, describe, expect, it } from "@jest/globals";
import type { EntryReport } from "../../../src/protocol/session-ports.ts";
import { CredentialReports } from "../../../src/proxy/credential-reports.ts";
import { systemClock } from "../../../src/runtime/clock.ts";
import { silentLogger } from "../../../src/runtime/logger.ts";
import {
  createRedisSessionPorts,
  type RedisSessionPorts,
} from "../../../src/sessions/redis/redis-session-store.ts";
import type { RedisProcess } from "../../../src/sessions/redis/users.ts";
import { eventually } from "../../eventually.ts";
import { type RedisWithUsers, startRedisWithUsers } from "../../servers/redis-users.ts";

/** How a status learns of what proxies read: as the Redis users of production. */

const KEY = "drover:px:cred:team-a:git";
const at = { tenant: "team-a", vault: "git", entry: "main" };
const report: EntryReport = { ok: true, reason: "Resolved", message: "", version: "3", ts: 1 };

let server: RedisWithUsers;
const ports = {} as Record<"operator" | "proxy" | "edge", RedisSessionPorts>;

beforeAll(async () => {
  server = await startRedisWithUsers();
  for (const user of ["operator", "proxy", "edge"] as const) ports[user] = await connected(user);
});

afterAll(async () => {
  for (const port of Object.values(ports)) port.close();
  await server?.stop();
});

beforeEach(async () => {
  await server.connect("admin").flushall();
});

async function connected(user: RedisProcess): Promise<RedisSessionPorts> {
  const port = createRedisSessionPorts({ ...server.as(user), logger: silentLogger });
  await eventually("the answer", async () => {
    await port.readSnapshot("team-a", "sesn_none");
    return true;
  });
  return port;
}

describe("reports on credentials", () => {
  it.each(["proxy", "edge"] as const)("written by the %s reach the operator", async (writer) => {
    await ports[writer].writeCredentialReport(at, report);

    const read = await ports.operator.readCredentialReports("team-a", "git");

    expect(read).toEqual(new Map([["main", report]]));
  });

  it("are of one vault in one namespace, and the last word on an entry counts", async () => {
    const gone = { ok: false, reason: "CredentialNotFound", message: "nothing there", ts: 2 };
    await ports.proxy.writeCredentialReport(at, report);
    await ports.edge.writeCredentialReport(at, gone);
    await ports.edge.writeCredentialReport({ ...at, tenant: "team-b" }, report);

    expect(await ports.operator.readCredentialReports("team-a", "git")).toEqual(
      new Map([["main", gone]]),
    );
    expect(await ports.operator.readCredentialReports("team-a", "docs")).toEqual(new Map());
  });

  it("that no status may hold are left out", async () => {
    const admin = server.connect("admin");
    await admin.hset(
      KEY,
      "text",
      "not json",
      "long",
      JSON.stringify({ ...report, message: "x".repeat(1025) }),
    );
    await admin.hset(KEY, "word", JSON.stringify({ ...report, reason: "two words" }));
    await ports.proxy.writeCredentialReport(at, report);

    const read = await ports.operator.readCredentialReports("team-a", "git");

    expect([...read.keys()]).toEqual(["main"]);
  });

  it("are forgotten a week after the last one", async () => {
    await ports.proxy.writeCredentialReport(at, report);

    const left = await server.connect("admin").ttl(KEY);

    expect(left).toBeGreaterThan(6 * 86_400);
    expect(left).toBeLessThanOrEqual(7 * 86_400);
  });

  it("cannot be read by a proxy, nor written by the operator", async () => {
    await expect(ports.proxy.readCredentialReports("team-a", "git")).rejects.toMatchObject({
      code: "UNAVAILABLE",
    });
    await expect(ports.operator.writeCredentialReport(at, report)).rejects.toMatchObject({
      code: "UNAVAILABLE",
    });
  });

  it("go from a read in a proxy to the operator without anybody waiting", async () => {
    const reports = new CredentialReports({ writer: ports.proxy, clock: systemClock });

    reports.note({ ...at, failure: { code: "CREDENTIAL_UNAVAILABLE", message: "sealed" } });

    await eventually(
      "the answer",
      async () => (await ports.operator.readCredentialReports("team-a", "git")).size === 1,
    );
    const read = await ports.operator.readCredentialReports("team-a", "git");
    expect(read.get("main")).toMatchObject({
      ok: false,
      reason: "CredentialUnavailable",
      message: "sealed",
    });
  });
});
