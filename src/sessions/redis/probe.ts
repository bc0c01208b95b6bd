import type { Redis } from "ioredis";
import { AppError, describeError } from "../../runtime/errors.ts";
import type { CommitMode } from "../session-log.ts";
import { createConnection, endpointOf, type RedisAddress } from "./connection.ts";
import { isAuthError, isServerReply, isUntrusted } from "./redis-errors.ts";

/** Names like those of a session's keys, for questions about rights. */
const KEY = "drover:{prob.00}:probe:m";
const SNAPSHOT = "drover:s:{prob.00}:probe";

/** What the server is, and what could not be found out because it forbids the question. */
export interface RedisFacts {
  product: "redis" | "valkey";
  version: string;
  /** Settings that could not be read, for a warning. */
  unknown: string[];
}

/**
 * Asks a server at start-up whether the log may trust it. Throws REDIS_UNREACHABLE,
 * REDIS_AUTH_FAILED, REDIS_EVICTS, REDIS_DURABILITY_NOT_KEPT or REDIS_UNSUPPORTED; the message
 * says what to change. `poolCode` names keys this user may touch.
 */
export async function probeRedis(
  address: RedisAddress,
  options: { commit: CommitMode; poolCode?: string | undefined },
): Promise<RedisFacts> {
  const endpoint = endpointOf(address);
  const connection = createConnection(address, "probe");
  let lastError: unknown;
  connection.on("error", (error) => {
    lastError ??= error;
  });
  try {
    await connection.connect();
    const facts = await checkVersion(connection, endpoint);
    await checkEviction(connection, endpoint);
    await checkDurability(connection, { ...options, endpoint, facts });
    await checkScripting(connection, options.poolCode ?? "prob", endpoint);
    await checkReload(connection, endpoint, facts);
    return facts;
  } catch (error) {
    if (error instanceof AppError) throw error;
    throw connectionError(lastError ?? error, endpoint, address.username);
  } finally {
    connection.disconnect();
  }
}

function connectionError(error: unknown, endpoint: string, username = "default"): AppError {
  if (isAuthError(error)) {
    return new AppError(
      "REDIS_AUTH_FAILED",
      `Redis at ${endpoint} refuses user "${username}"; check its password and its rights`,
      { cause: error },
    );
  }
  if (isUntrusted(error)) {
    return new AppError(
      "REDIS_UNREACHABLE",
      `the certificate of Redis at ${endpoint} is not trusted (${describeError(error)}); give the certificate of the authority that signed it as DROVER_REDIS_CA_FILE (redis.caSecret of the chart)`,
      { cause: error, retryable: true },
    );
  }
  return new AppError(
    "REDIS_UNREACHABLE",
    `Redis at ${endpoint} cannot be reached (${describeError(error)}); check its address, that it runs, and network policies`,
    { cause: error, retryable: true },
  );
}

async function checkVersion(connection: Redis, endpoint: string): Promise<RedisFacts> {
  const info = infoFields(await connection.info("server"));
  const product = info.get("server_name") === "valkey" ? "valkey" : "redis";
  const version = info.get(product === "valkey" ? "valkey_version" : "redis_version") ?? "0";
  const needed = product === "valkey" ? 8 : 7;
  if (Number.parseInt(version, 10) < needed) {
    throw new AppError(
      "REDIS_UNSUPPORTED",
      `Redis at ${endpoint} is ${product} ${version}; use Redis 7.0 or Valkey 8.0, or newer`,
    );
  }
  checkMode(info.get("redis_mode") ?? info.get("server_mode"), endpoint);
  const replication = infoFields(await connection.info("replication"));
  if (replication.get("role") === "slave") {
    throw new AppError(
      "REDIS_UNSUPPORTED",
      `Redis at ${endpoint} is a replica; give the address of the primary`,
    );
  }
  return { product, version, unknown: [] };
}

/** A log spreads over all slots, and a node of a cluster answers for its own alone (MOVED). */
function checkMode(mode: string | undefined, endpoint: string): void {
  if (mode === "cluster") {
    throw new AppError(
      "REDIS_UNSUPPORTED",
      `Redis at ${endpoint} is a node of a Redis Cluster, which Drover cannot use yet; give the address of a server with cluster-enabled no, or of a service in a mode without cluster`,
    );
  }
  if (mode === "sentinel") {
    throw new AppError(
      "REDIS_UNSUPPORTED",
      `Redis at ${endpoint} is a Sentinel, which holds no data, and Drover cannot ask it for the primary yet; give an address that leads to the primary itself, such as that of a proxy or a Service which follows it`,
    );
  }
}

async function checkEviction(connection: Redis, endpoint: string): Promise<void> {
  const policy = infoFields(await connection.info("memory")).get("maxmemory_policy");
  if (policy === undefined || policy === "noeviction") return;
  throw new AppError(
    "REDIS_EVICTS",
    `Redis at ${endpoint} may drop session logs when memory runs out: its maxmemory-policy is ${policy}; set it to noeviction`,
  );
}

async function checkDurability(
  connection: Redis,
  check: { commit: CommitMode; endpoint: string; facts: RedisFacts },
): Promise<void> {
  const { commit, endpoint, facts } = check;
  const refuse = (problem: string) =>
    new AppError("REDIS_DURABILITY_NOT_KEPT", `Redis at ${endpoint} ${problem}`);
  if (commit.mode === "fsync") {
    const settings = await configOf(connection, ["appendonly", "appendfsync"]);
    if (settings === undefined) facts.unknown.push("appendonly", "appendfsync");
    else if (settings.get("appendonly") !== "yes" || settings.get("appendfsync") !== "always") {
      throw refuse(
        `does not sync each write to disk, as commit mode fsync needs: set appendonly yes and appendfsync always, or choose another commit mode`,
      );
    }
  }
  if (commit.mode === "replicas") {
    const info = infoFields(await connection.info("replication"));
    const replicas = Number(info.get("connected_slaves") ?? 0);
    if (replicas < commit.n) {
      throw refuse(
        `has ${replicas} replicas, and commit mode replicas needs ${commit.n}: add replicas or choose another commit mode`,
      );
    }
    await connection.wait(0, 1);
  }
}

async function checkScripting(connection: Redis, code: string, endpoint: string): Promise<void> {
  const tag = `drover:{${code}.00}`;
  try {
    // Claims compute the keys of members: same slot, but not declared.
    const script = "return redis.call('HGET', ARGV[1], 'probe')";
    await connection.eval(script, 1, `${tag}:probe:m`, `${tag}:probe2:m`);
    await connection.spublish(`${tag}:probe:n`, "");
  } catch (error) {
    if (!isServerReply(error)) throw error;
    if (isAuthError(error)) throw error;
    throw new AppError(
      "REDIS_UNSUPPORTED",
      `Redis at ${endpoint} refuses scripts or sharded publish (${describeError(error)}); use a server that allows EVAL and SPUBLISH`,
      { cause: error },
    );
  }
}

/** What our scripts write, each with arguments that make it whole. */
export const REPLAYED: readonly (readonly string[])[] = [
  ["hset", KEY, "f", "v"],
  ["hdel", KEY, "f"],
  ["hincrby", KEY, "f", "1"],
  ["xadd", KEY, "*", "f", "v"],
  ["zadd", KEY, "1", "m"],
  ["zrem", KEY, "m"],
  ["rpush", KEY, "v"],
  ["ltrim", KEY, "0", "1"],
  ["set", SNAPSHOT, "v"],
  ["del", SNAPSHOT],
];

/**
 * A server reads its append-only file as the default user, and what a script wrote stands there as
 * a transaction, whose commands are checked against that user's rights once more. Where they lack
 * (`user default off` in an ACL file takes all of them), the server drops the logs as it starts and
 * goes on without them. Releases with the mend (redis/redis#14545, valkey-io/valkey#3984) are not
 * told apart: the rights cost nothing, as a user without a password lets nobody in.
 */
async function checkReload(connection: Redis, endpoint: string, facts: RedisFacts): Promise<void> {
  const persistence = infoFields(await connection.info("persistence"));
  if (persistence.get("aof_enabled") === "0") return;
  const denied = await deniedToDefault(connection);
  if (denied === "unknown") {
    facts.unknown.push("rights of the default user");
  } else if (denied !== undefined) {
    throw new AppError(
      "REDIS_DURABILITY_NOT_KEPT",
      `Redis at ${endpoint} would lose session logs at its next start: it reads its append-only file as the user "default", who lacks a right for that (${denied.reason}); run ACL SETUSER default on resetpass ~* &* +@all, which lets nobody log in as that user, and keep it (ACL SAVE, or the same words in the ACL file)`,
    );
  }
}

/** The first command that the default user may not run. Nothing is run. */
async function deniedToDefault(
  connection: Redis,
): Promise<{ reason: string } | "unknown" | undefined> {
  try {
    for (const command of REPLAYED) {
      const reply = await connection.call("ACL", "DRYRUN", "default", ...command);
      if (reply !== "OK") return { reason: String(reply) };
    }
    return undefined;
  } catch (error) {
    if (isServerReply(error)) return "unknown";
    throw error;
  }
}

/** Undefined where CONFIG is forbidden. */
async function configOf(
  connection: Redis,
  names: string[],
): Promise<Map<string, string> | undefined> {
  try {
    const values = new Map<string, string>();
    for (const name of names) {
      const reply = await connection.config("GET", name);
      const [, value] = Array.isArray(reply) ? reply : [];
      values.set(name, String(value));
    }
    return values;
  } catch (error) {
    if (isServerReply(error)) return undefined;
    throw error;
  }
}

function infoFields(text: string): Map<string, string> {
  const pairs = text
    .split(/\r?\n/)
    .map((line) => line.split(":"))
    .filter((parts) => parts.length > 1)
    .map(([name = "", ...rest]) => [name, rest.join(":")] as const);
  return new Map(pairs);
}
