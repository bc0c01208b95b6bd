import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, it } from "@jest/globals";
import { Redis } from "ioredis";
import { Secret } from "../../src/runtime/secret.ts";
import { probeRedis } from "../../src/sessions/redis/probe.ts";
import { REDIS_PROCESSES } from "../../src/sessions/redis/users.ts";
import { tenSessionsThroughKill } from "../builders/sessions-through-a-kill.ts";
import { type RedisServer, startRedis } from "../servers/redis-server.ts";
import { CHART, find, render } from "./helm.ts";

/** A real server with the files that the evaluation's Valkey mounts. */

let folder: string;
let server: RedisServer | undefined;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "drover-chart-valkey-"));
});

afterEach(async () => {
  await server?.stop();
  await rm(folder, { recursive: true });
});

/** Starts it and gives the keys of its Secret. */
async function start(values: string): Promise<Record<string, string>> {
  const secret = find(await render(["-f", values]), "Secret", "drover-valkey");
  const { data } = secret as unknown as { data: Record<string, string> };
  const entries = Object.entries(data).map(([name, value]) => [
    name,
    Buffer.from(value, "base64").toString(),
  ]);
  const files = Object.fromEntries(entries) as Record<string, string>;
  const acl = join(folder, "users.acl");
  await writeFile(acl, files["users.acl"] ?? "");
  // The places are those of this test; everything else is as in the pod.
  const settings = (files["valkey.conf"] ?? "").trim().split("\n");
  const own = settings.filter((line) => !/^(dir|aclfile) /.test(line));
  const options = own.flatMap((line) => {
    const [name = "", ...value] = line.split(" ");
    return [`--${name}`, ...value];
  });
  server = await startRedis({ args: [...options, "--aclfile", acl] });
  return files;
}

it("each process gets in with its password, and finds what it needs of a server", async () => {
  const passwords = await start(`${CHART}/values-eval.yaml`);
  const { url = "" } = server ?? {};
  const commit = { mode: "fsync" } as const;

  for (const username of ["operator", "harness"] as const) {
    const password = new Secret(passwords[username] ?? "");
    await expect(probeRedis({ url, username, password }, { commit })).resolves.toBeDefined();
  }
  for (const username of REDIS_PROCESSES) {
    const password = passwords[username] ?? "";
    expect(await client({ username, password }).hmget("drover:{a.00}:t:s:m", "tok")).toEqual([
      null,
    ]);
  }
});

it.each([
  { name: "nobody's password", values: "values-eval.yaml" },
  { name: "a password for people", values: "ci/evaluation-values.yaml" },
])("kill -9 under ten sessions loses none of them (default user with $name)", async (row) => {
  const { operator = "" } = await start(`${CHART}/${row.values}`);
  if (server === undefined) throw new Error("not started");
  const password = new Secret(operator);

  const address = { url: server.url, username: "operator", password };
  const seqs = await tenSessionsThroughKill(server, address);

  expect(seqs).toEqual(Array.from({ length: 10 }, () => 2));
});

it("nobody else gets in", async () => {
  await start(`${CHART}/values-eval.yaml`);

  await expect(client({}).get("x")).rejects.toThrow(/NOAUTH/);
  await expect(client({ username: "default", password: "guessed" }).get("x")).rejects.toThrow(
    /WRONGPASS|NOAUTH/,
  );
  await expect(client({ username: "harness", password: "guessed" }).get("x")).rejects.toThrow(
    /WRONGPASS|NOAUTH/,
  );
});

it("with a password for people they may do everything with it, whatever characters it has", async () => {
  await start(`${CHART}/ci/evaluation-values.yaml`);

  expect(await client({ password: 'a"b\\c#d$e' }).keys("*")).toEqual([]);
});

function client(login: { username?: string; password?: string }): Redis {
  const options = { port: server?.port ?? 0, protocol: 2, disableClientInfo: true } as const;
  const connection = new Redis({ ...options, ...login, retryStrategy: () => null });
  connection.on("error", () => {});
  clients.push(connection);
  return connection;
}

const clients: Redis[] = [];
afterEach(() => {
  for (const connection of clients.splice(0)) connection.disconnect();
});
