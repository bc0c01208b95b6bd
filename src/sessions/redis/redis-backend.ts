import type { Redis } from "ioredis";
import type { Clock } from "../../runtime/clock.ts";
import type { Logger } from "../../runtime/logger.ts";
import type { Rng } from "../../runtime/rng.ts";
import type {
  ClaimBatch,
  Delta,
  HeldLease,
  LogBackend,
  LogWatcher,
  Page,
  RenewOp,
} from "../backend.ts";
import { type PartitionKeys, poolPartitions, refOfMember, sessionKeys } from "../keys.ts";
import type {
  AppendOp,
  AppendReply,
  BarrierReply,
  ClaimOp,
  LeasedAppendOp,
  LeasedAppendReply,
  ReleaseReply,
  SettleOp,
  SettleReply,
  WakeReply,
} from "../log-state.ts";
import type { ScriptName, Scripts } from "../scripts.ts";
import type {
  CreateSession,
  Durability,
  Head,
  PoolKey,
  PoolRegistration,
  Position,
  Release,
  SandboxBinding,
  SandboxRequest,
  Seq,
  SessionRef,
  StateChange,
} from "../session-log.ts";
import type { RedisBell } from "./bell.ts";
import { Contacts } from "./contacts.ts";
import { encodeEvents } from "./event-codec.ts";
import type { OperatorTables } from "./operator-tables.ts";
import { PlainReads, statusOf } from "./plain-reads.ts";
import { describeTrouble } from "./redis-errors.ts";
import { withRetry } from "./retry.ts";
import {
  appendReply,
  barrierReply,
  claimReply,
  leasedAppendReply,
  releaseReply,
  settleReply,
  wakeReply,
} from "./script-replies.ts";
import { runScript, type ScriptArg, textsOf } from "./script-runner.ts";
import type { Subscriptions } from "./subscriptions.ts";
import type { WorkerTable } from "./worker-table.ts";

/** Writes are tried again for this long: a restart of Redis takes seconds, a failover 3 to 15. */
export const WRITE_DEADLINE_MS = 15_000;
const READ_DEADLINE_MS = 5000;

export interface RedisBackendDeps {
  command: Redis;
  /** Where committed steps go, and what makes them committed after their reply. */
  commit: { connection: Redis; committed(): Promise<void> };
  bells: { work: RedisBell; requests: RedisBell; changes: RedisBell };
  subscriptions: Subscriptions;
  tables: OperatorTables;
  workers: WorkerTable;
  /**
   * True when the connection has been up long enough for holders to have renewed
   * (docs/design/session-log.md#leases-and-takeover).
   */
  mayStealExpired: (ttlMs: number) => boolean;
  writeDeadlineMs: number;
  pools: readonly PoolKey[];
  scripts: Scripts;
  clock: Clock;
  rng: Rng;
  logger: Logger;
}

/** The session log on Redis: one script a verb; the rules are in `scripts/`. */
export class RedisBackend implements LogBackend {
  readonly #deps: RedisBackendDeps;
  readonly #reads: PlainReads;
  readonly #contacts: Contacts;
  readonly #partitions: readonly PartitionKeys[];
  #nextPartition = 0;

  constructor(deps: RedisBackendDeps) {
    this.#deps = deps;
    this.#reads = new PlainReads(deps.command);
    this.#contacts = new Contacts(deps.clock);
    this.#partitions = deps.pools.flatMap(poolPartitions);
  }

  async create(session: CreateSession, gen: string): Promise<{ created: boolean; head: Head }> {
    const keys = sessionKeys(session);
    const wake = session.wake ?? true;
    const reply = await this.#write(`creating session ${session.id}`, "committed", "create", {
      keys: [
        keys.meta,
        keys.log,
        keys.due,
        keys.bell,
        keys.snapshot,
        keys.index,
        keys.state,
        keys.sbell,
        keys.payloads,
      ],
      args: [
        keys.member,
        session.id,
        gen,
        session.source,
        JSON.stringify(session.snapshot),
        wake ? "1" : "0",
        ...encodeEvents(session.events),
      ],
    });
    const [word, theirGen = "", seq, id = "", chain = "", st, why = ""] = textsOf(reply);
    const pos = { seq: Number(seq), id, chain };
    // After a lost reply the second attempt finds the log; its gen says that we made it.
    const created = word === "OK" || theirGen === gen;
    return { created, head: { pos, gen: theirGen, status: statusOf(st), why } };
  }

  async append(
    ref: SessionRef,
    op: Omit<AppendOp, "known">,
    durability: Durability,
  ): Promise<AppendReply> {
    const keys = sessionKeys(ref);
    const reply = await this.#write(`appending to session ${ref.id}`, durability, "append", {
      keys: [
        keys.meta,
        keys.log,
        keys.due,
        keys.bell,
        keys.idempotency,
        keys.state,
        keys.sbell,
        keys.payloads,
      ],
      args: [
        keys.member,
        keys.notify,
        op.key,
        op.wake ? "1" : "0",
        op.onlyIfIdleAt ?? "",
        ...encodeEvents(op.events),
      ],
    });
    return appendReply(textsOf(reply));
  }

  async appendLeased(
    ref: SessionRef,
    op: LeasedAppendOp,
    options: { durability: Durability; signal: AbortSignal },
  ): Promise<LeasedAppendReply> {
    const keys = sessionKeys(ref);
    const call = {
      keys: [
        keys.meta,
        keys.log,
        keys.due,
        keys.bell,
        keys.hands,
        keys.hbell,
        keys.state,
        keys.sbell,
        keys.arch,
        keys.payloads,
      ],
      args: [
        keys.member,
        keys.notify,
        op.token,
        op.n,
        op.prev.seq,
        op.prev.id,
        op.prev.chain,
        op.onlyIfTail ? "1" : "0",
        ...releaseArgs(op.release),
        ...encodeEvents(op.events),
      ],
    };
    const what = `appending to session ${ref.id}`;
    const { durability, signal } = options;
    const reply = await this.#write(what, durability, "append-leased", call, signal);
    return leasedAppendReply(textsOf(reply));
  }

  async barrier(ref: SessionRef, op: { token: string; prev: Position }): Promise<BarrierReply> {
    const keys = sessionKeys(ref);
    const reply = await this.#write(`committing session ${ref.id}`, "committed", "barrier", {
      keys: [keys.meta, keys.log],
      args: [op.token, op.prev.seq, op.prev.id, op.prev.chain],
    });
    return barrierReply(textsOf(reply));
  }

  async release(
    ref: SessionRef,
    op: { token: string; seen: Seq; release: Release },
  ): Promise<ReleaseReply> {
    const keys = sessionKeys(ref);
    const reply = await this.#write(`releasing session ${ref.id}`, "applied", "release", {
      keys: [keys.meta, keys.due, keys.bell, keys.arch, keys.state, keys.sbell],
      args: [keys.member, op.token, op.seen, ...releaseArgs(op.release)],
    });
    return releaseReply(textsOf(reply));
  }

  async wake(ref: SessionRef): Promise<WakeReply> {
    const keys = sessionKeys(ref);
    const reply = await this.#write(`waking session ${ref.id}`, "applied", "wake", {
      keys: [keys.meta, keys.due, keys.bell],
      args: [keys.member],
    });
    return wakeReply(textsOf(reply));
  }

  async remove(ref: SessionRef): Promise<void> {
    const keys = sessionKeys(ref);
    await this.#read("unbinding sandboxes", () => this.#deps.tables.unbindAll(ref));
    await this.#write(`deleting session ${ref.id}`, "committed", "delete", {
      keys: [
        keys.meta,
        keys.log,
        keys.idempotency,
        keys.payloads,
        keys.preview,
        keys.snapshot,
        keys.due,
        keys.index,
        keys.hands,
        keys.state,
        keys.arch,
        keys.bound,
      ],
      args: [keys.member, ref.id, keys.notify],
    });
  }

  /** Goes round the partitions, several at once, never asking for more than is wanted in all. */
  async claim(op: Omit<ClaimOp, "stealExpired"> & { max: number }): Promise<ClaimBatch> {
    const batch: ClaimBatch = { leases: [], unsettled: [] };
    const count = this.#partitions.length;
    const start = this.#nextPartition;
    this.#nextPartition = count === 0 ? 0 : (start + 1) % count;
    let visited = 0;
    while (visited < count && batch.leases.length < op.max) {
      const free = op.max - batch.leases.length;
      const width = Math.min(free, count - visited);
      const some = Array.from(
        { length: width },
        (_, i) => this.#partitions[(start + visited + i) % count],
      );
      const max = Math.floor(free / width);
      const claims = some.flatMap((keys, i) => {
        if (keys === undefined) return [];
        // One partition a round may give a suspect, so that there is no more than one.
        const takesSuspect = op.takesSuspect && visited === 0 && i === 0;
        return [this.#claimIn(keys, { ...op, max, takesSuspect })];
      });
      const found = await Promise.all(claims);
      batch.leases.push(...found.flatMap(({ leases }) => leases));
      batch.unsettled.push(...found.flatMap(({ unsettled }) => unsettled));
      visited += width;
    }
    return batch;
  }

  async renew(leases: readonly HeldLease[], op: RenewOp): Promise<(Seq | null)[]> {
    const groups = Map.groupBy(leases, ({ ref }) => sessionKeys(ref).prefix);
    // By lease: those of one claim have the same token.
    const seqs = new Map<HeldLease, Seq | null>();
    await Promise.all(
      [...groups].map(async ([prefix, group]) => {
        const pairs = group.map(({ ref, token }) => [sessionKeys(ref).member, token] as const);
        const reply = await this.#contacts.call(prefix, async (contact) => {
          const keys = [`${prefix}q:due`, `${prefix}q:alive`];
          const args = [prefix, op.ttlMs, op.incarnation, op.suspect, ...contact, ...pairs.flat()];
          const [at, ...found] = textsOf(
            await this.#run(this.#deps.command, "renew", { keys, args }),
          );
          return { at: Number(at), found };
        });
        for (const [i, lease] of group.entries()) {
          const seq = Number(reply.found[i] ?? -1);
          seqs.set(lease, seq < 0 ? null : seq);
        }
      }),
    );
    return leases.map((lease) => seqs.get(lease) ?? null);
  }

  async settle(ref: SessionRef, op: SettleOp): Promise<SettleReply> {
    const keys = sessionKeys(ref);
    const reply = await this.#write(`settling session ${ref.id}`, "applied", "settle", {
      keys: [keys.meta, keys.log, keys.due, keys.payloads],
      args: [keys.member, keys.notify, op.epoch, ...encodeEvents(op.events)],
    });
    return settleReply(textsOf(reply));
  }

  head(ref: SessionRef) {
    return this.#read(`reading session ${ref.id}`, () => this.#reads.head(ref));
  }

  snapshotOf(ref: SessionRef) {
    return this.#read(`reading session ${ref.id}`, () => this.#reads.snapshotOf(ref));
  }

  read(ref: SessionRef, page: Page) {
    return this.#read(`reading session ${ref.id}`, () => this.#reads.page(ref, page));
  }

  statesOf(refs: readonly SessionRef[]) {
    return this.#read("reading session states", () =>
      Promise.all(refs.map((ref) => this.#reads.stateOf(ref))),
    );
  }

  readLease(tenant: string, sessionId: string) {
    return this.#read("reading a lease", () => this.#reads.readLease(tenant, sessionId));
  }

  readBinding(sandboxId: string) {
    return this.#read("reading a binding", () => this.#reads.readBinding(sandboxId));
  }

  watch(ref: SessionRef, watcher: LogWatcher): () => void {
    const keys = sessionKeys(ref);
    const ends = [
      this.#deps.subscriptions.add(keys.notify, {
        onMessage: (message) => watcher.onHint(Number(message.split(":")[1] ?? 0)),
        onGap: () => watcher.onHint(null),
      }),
    ];
    if (watcher.onDelta !== undefined) {
      const onMessage = (message: string) => watcher.onDelta?.(parseDelta(message));
      ends.push(this.#deps.subscriptions.add(keys.deltas, { onMessage, onGap: () => {} }));
    }
    return () => {
      for (const end of ends) end();
    };
  }

  publishDelta(ref: SessionRef, delta: Delta): void {
    const message = JSON.stringify({ event_id: delta.eventId, off: delta.off, text: delta.text });
    this.#deps.command
      .spublish(sessionKeys(ref).deltas, message)
      .catch((error: unknown) =>
        this.#deps.logger.debug({ err: describeTrouble(error) }, "publishing live text failed"),
      );
  }

  waitForWork(ms: number, signal: AbortSignal): Promise<void> {
    return this.#deps.bells.work.wait(this.#deps.workers.pollMs(ms), signal);
  }

  waitForOperatorWork(kind: "requests" | "changes", ms: number, signal: AbortSignal) {
    return this.#deps.bells[kind].wait(ms, signal);
  }

  heartbeat(worker: string): Promise<void> {
    return this.#deps.workers.beat(worker);
  }

  workers() {
    return this.#read("listing workers", () => this.#deps.workers.list());
  }

  openRequests() {
    return this.#read("listing sandbox requests", () => this.#deps.tables.openRequests());
  }

  openChanges() {
    return this.#read("listing state changes", () => this.#deps.tables.openChanges());
  }

  answered(request: SandboxRequest) {
    return this.#read("closing a request", () => this.#deps.tables.answered(request));
  }

  ackState(change: StateChange) {
    return this.#read("acknowledging a state", () => this.#deps.tables.ackState(change));
  }

  watchPools(pools: readonly PoolKey[]): void {
    this.#deps.tables.watchPools(pools);
  }

  registerPool(pool: PoolRegistration) {
    return this.#read(`registering harness pool "${pool.name}"`, () =>
      this.#deps.tables.registerPool(pool),
    );
  }

  poolConfig(code: string) {
    return this.#read("reading a pool's record", () => this.#deps.tables.poolConfig(code));
  }

  bindSandbox(sandboxId: string, binding: SandboxBinding) {
    return this.#read("binding a sandbox", () => this.#deps.tables.bindSandbox(sandboxId, binding));
  }

  unbindSandbox(sandboxId: string) {
    return this.#read("unbinding a sandbox", () => this.#deps.tables.unbindSandbox(sandboxId));
  }

  close(): Promise<void> {
    for (const bell of Object.values(this.#deps.bells)) bell.close();
    this.#deps.subscriptions.close();
    this.#deps.commit.connection.disconnect();
    this.#deps.command.disconnect();
    return Promise.resolve();
  }

  #claimIn(keys: PartitionKeys, op: Omit<ClaimOp, "stealExpired"> & { max: number }) {
    const steal = this.#deps.mayStealExpired(op.ttlMs) ? "1" : "0";
    const { worker, nonce, ttlMs, max, suspect } = op;
    const takesSuspect = op.takesSuspect ? "1" : "0";
    return this.#contacts.call(keys.prefix, async (contact) => {
      const reply = await this.#run(this.#deps.command, "claim", {
        keys: [keys.due, keys.state, keys.sbell, keys.alive],
        args: [keys.prefix, worker, nonce, ttlMs, max, steal, suspect, takesSuspect, ...contact],
      });
      return claimReply(reply, refOfMember);
    });
  }

  /** The same step, over and over, until it has an answer: scripts tell a repetition from a new call. */
  #write(
    what: string,
    durability: Durability,
    name: ScriptName,
    call: { keys: readonly string[]; args: readonly ScriptArg[] },
    signal?: AbortSignal,
  ): Promise<unknown> {
    const options = { what, deadlineMs: this.#deps.writeDeadlineMs, signal, writes: true };
    return withRetry(this.#deps, options, async () => {
      if (durability === "applied") return await this.#run(this.#deps.command, name, call);
      const reply = await this.#run(this.#deps.commit.connection, name, call);
      await this.#deps.commit.committed();
      return reply;
    });
  }

  /** Reads, and writes that may be repeated without a trace. */
  #read<T>(what: string, step: () => Promise<T>): Promise<T> {
    return withRetry(this.#deps, { what, deadlineMs: READ_DEADLINE_MS, writes: false }, step);
  }

  #run(
    connection: Redis,
    name: ScriptName,
    call: { keys: readonly string[]; args: readonly ScriptArg[] },
  ): Promise<unknown> {
    return runScript(connection, this.#deps.scripts, name, call);
  }
}

function releaseArgs(release: Release | null): string[] {
  switch (release?.kind) {
    case undefined:
      return ["", ""];
    case "after":
      return ["after", `${release.delayMs}`];
    case "idle":
    case "terminated":
      return [release.kind, release.why];
    case "requeue":
    case "suspended":
      return [release.kind, ""];
  }
}

function parseDelta(message: string): Delta {
  const { event_id: eventId, off, text } = JSON.parse(message);
  return { eventId: String(eventId), off: Number(off), text: String(text) };
}
