import type { Redis } from "ioredis";
import type { CheckpointStore, ToolPinStore } from "../../protocol/proxy-ports.ts";
import type {
  CredentialReportReader,
  CredentialReportWriter,
} from "../../protocol/session-ports.ts";
import type { Clock } from "../../runtime/clock.ts";
import type { Logger } from "../../runtime/logger.ts";
import type { Rng } from "../../runtime/rng.ts";
import type { LogBackend } from "../backend.ts";
import type { SessionLogMetrics } from "../metrics.ts";
import { loadScripts } from "../scripts.ts";
import type { CommitMode, PoolKey, SessionPorts, SessionStore } from "../session-log.ts";
import type { LeaseTimings } from "../store/backed-queue.ts";
import { assembleStore } from "../store/session-store.ts";
import { RedisBell } from "./bell.ts";
import { type ConnectionKind, createConnection, type RedisAddress } from "./connection.ts";
import { RedisCredentialReports } from "./credential-reports.ts";
import { checkReplicas, GroupCommit, replyIsCommit } from "./group-commit.ts";
import { OperatorTables } from "./operator-tables.ts";
import { OutageLog } from "./outage-log.ts";
import { PlainReads } from "./plain-reads.ts";
import { probeRedis } from "./probe.ts";
import { RedisProxyRecords } from "./proxy-records.ts";
import { RedisBackend, WRITE_DEADLINE_MS } from "./redis-backend.ts";
import { unavailable } from "./redis-errors.ts";
import { Subscriptions } from "./subscriptions.ts";
import { WorkerTable } from "./worker-table.ts";

export interface RedisStoreOptions extends RedisAddress {
  /** What makes an append committed; checked against the server. */
  commit: CommitMode;
  /** Pools whose sessions `queue()` claims and, at first, `requests()` and `changes()` look at. */
  pools: readonly PoolKey[];
  timings?: Partial<LeaseTimings>;
  /** How long a write is tried again before it is given up as UNAVAILABLE or OUTCOME_UNKNOWN. */
  writeDeadlineMs?: number;
  clock: Clock;
  rng: Rng;
  logger: Logger;
  metrics?: SessionLogMetrics;
}

/**
 * The production store. Probes the server first and throws what `probeRedis` throws; later it rides
 * out outages by itself: verbs wait some seconds, then reject with UNAVAILABLE or OUTCOME_UNKNOWN.
 */
export async function connectRedisSessionStore(options: RedisStoreOptions): Promise<SessionStore> {
  const backend = await connectRedisBackend(options);
  return assembleStore({ ...options, backend });
}

/** The layer below the contract; for tests that compare replies. */
export async function connectRedisBackend(options: RedisStoreOptions): Promise<LogBackend> {
  const { clock, rng, logger, pools, metrics, commit } = options;
  if (commit.mode === "replicas") checkReplicas(commit.n);
  const facts = await probeRedis(options, { commit, poolCode: pools[0]?.code });
  if (facts.unknown.length > 0) {
    const fields = { reason: facts.unknown.join(", ") };
    logger.info(fields, "redis does not tell its settings; they must fit the commit mode");
  }
  const starting: Promise<void>[] = [];
  const outages = new OutageLog(logger);
  const open = (kind: ConnectionKind) => {
    const connection = createConnection(options, kind);
    outages.watch(connection);
    // A first failure is an error event like any later one.
    starting.push(connection.connect().catch(() => {}));
    return connection;
  };
  const command = open("command");
  const scripts = loadScripts();
  const tables = new OperatorTables(command, scripts, pools);
  const workKeys = pools.flatMap((pool) => new OperatorTables(command, scripts, [pool]).partitions);
  const bell = (keys: () => string[]) =>
    new RedisBell({ connection: open("blocking"), clock, logger, keys });
  const commitConnection = commit.mode === "replicas" ? open("commit") : command;
  const committed =
    commit.mode === "replicas"
      ? new GroupCommit(commitConnection, commit.n, { clock, metrics })
      : replyIsCommit;
  const backend = new RedisBackend({
    command,
    commit: { connection: commitConnection, committed: () => committed.committed() },
    bells: {
      work: bell(() => workKeys.map((keys) => keys.bell)),
      requests: bell(() => tables.partitions.map((keys) => keys.hbell)),
      changes: bell(() => tables.partitions.map((keys) => keys.sbell)),
    },
    subscriptions: new Subscriptions({ connection: open("subscriber"), clock, logger }),
    tables,
    workers: new WorkerTable(command, clock, pools),
    mayStealExpired: uptimeCheck(command, clock),
    writeDeadlineMs: options.writeDeadlineMs ?? WRITE_DEADLINE_MS,
    pools,
    scripts,
    clock,
    rng,
    logger,
  });
  await Promise.all(starting);
  return backend;
}

/** What processes beside the log know of sessions; single commands over one connection. */
export interface RedisSessionPorts
  extends SessionPorts,
    CredentialReportReader,
    CredentialReportWriter,
    ToolPinStore,
    CheckpointStore {
  close(): void;
}

/** Every verb rejects with UNAVAILABLE when Redis does not answer. */
export function createRedisSessionPorts(
  options: RedisAddress & { logger: Logger },
): RedisSessionPorts {
  const connection = createConnection(options, "command");
  new OutageLog(options.logger).watch(connection);
  // Until it is up, reads reject with UNAVAILABLE.
  void connection.connect().catch(() => {});
  const reads = new PlainReads(connection);
  const reports = new RedisCredentialReports(connection);
  const records = new RedisProxyRecords(connection);
  const guarded = <T>(what: string, read: Promise<T>): Promise<T> =>
    read.catch((error: unknown) => {
      throw unavailable(what, error);
    });
  return {
    readLease: (tenant, id) => guarded("reading a lease", reads.readLease(tenant, id)),
    readSnapshot: (tenant, id) => guarded("reading a session", reads.readSnapshot(tenant, id)),
    readBinding: (sandboxId) => guarded("reading a binding", reads.readBinding(sandboxId)),
    writeCredentialReport: (at, report) =>
      guarded("reporting on a credential", reports.writeCredentialReport(at, report)),
    readCredentialReports: (tenant, vault) =>
      guarded("reading reports on credentials", reports.readCredentialReports(tenant, vault)),
    readPins: (key) => guarded("reading pinned tools", records.readPins(key)),
    keepPins: (key, pins) => guarded("pinning tools", records.keepPins(key, pins)),
    appendCheckpoint: (signed) =>
      guarded("keeping an audit checkpoint", records.appendCheckpoint(signed)),
    close: () => connection.disconnect(),
  };
}

/** After an outage all leases look expired; their holders must get the time to renew them first. */
function uptimeCheck(connection: Redis, clock: Clock): (ttlMs: number) => boolean {
  let readySince: number | undefined;
  connection.on("ready", () => {
    readySince = clock.monotonic();
  });
  connection.on("close", () => {
    readySince = undefined;
  });
  return (ttlMs) => readySince !== undefined && clock.monotonic() - readySince >= ttlMs;
}
