import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Redis } from "ioredis";
import { Secret } from "../../src/runtime/secret.ts";
import type { RedisAddress } from "../../src/sessions/redis/connection.ts";
import { type RedisProcess, usersFile } from "../../src/sessions/redis/users.ts";
import { type RedisServer, startRedis } from "./redis-server.ts";

export interface RedisWithUsers extends RedisServer {
  /** The address of one process, with its own user. */
  as(process: RedisProcess): RedisAddress;
  /** A plain connection of a process' user, or of one who may do everything; ended with the server. */
  connect(user: RedisProcess | "admin"): Redis;
}

/** As the chart and the guide have it: it reads the append-only file, and nobody logs in as it. */
const DEFAULT_USER = "user default on resetpass ~* &* +@all";

/** A real redis-server where each process has its user, as in production; nobody else gets in. */
export async function startRedisWithUsers(
  options: { defaultUser?: string; args?: string[] } = {},
): Promise<RedisWithUsers> {
  const folder = await mkdtemp(join(tmpdir(), "drover-redis-users-"));
  const file = join(folder, "users.acl");
  const others = `${options.defaultUser ?? DEFAULT_USER}\nuser admin on >admin ~* &* +@all\n`;
  const users = usersFile().replaceAll(/>(\w+)_PASSWORD/g, (_, name: string) => {
    return `>${name.toLowerCase()}`;
  });
  await writeFile(file, users + others);
  // What a user may not is refused by its rights alone, not because the server has it off.
  const debug = ["--enable-debug-command", "yes", "--enable-module-command", "yes"];
  const server = await startRedis({ args: ["--aclfile", file, ...debug, ...(options.args ?? [])] });
  const connections: Redis[] = [];
  return {
    ...server,
    as: (process) => ({ url: server.url, username: process, password: new Secret(process) }),
    connect(user) {
      const { port } = server;
      const connection = new Redis({
        port,
        protocol: 2,
        username: user,
        password: user,
        disableClientInfo: true,
        retryStrategy: () => null,
      });
      connections.push(connection);
      return connection;
    },
    async stop() {
      for (const connection of connections) connection.disconnect();
      await server.stop();
      await rm(folder, { recursive: true, force: true });
    },
  };
}
