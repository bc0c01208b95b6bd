import { copyExact } from "../../protocol/exact-json.ts";
import type { SessionSnapshot } from "../../protocol/snapshot.ts";
import type { Clock } from "../../runtime/clock.ts";
import type {
  ClaimBatch,
  Delta,
  HeldLease,
  LogBackend,
  LogWatcher,
  Page,
  RenewOp,
} from "../backend.ts";
import { chainAt } from "../chain.ts";
import type {
  AppendOp,
  AppendReply,
  Applied,
  BarrierReply,
  ClaimOp,
  LeasedAppendOp,
  LeasedAppendReply,
  LogState,
  ReleaseReply,
  SettleOp,
  SettleReply,
  Surroundings,
  WakeReply,
} from "../log-state.ts";
import { findPoolCode } from "../pool-code.ts";
import type {
  CreateSession,
  Durability,
  Head,
  PoolConfig,
  PoolRegistration,
  Position,
  Release,
  SandboxBinding,
  SandboxRequest,
  Seq,
  SessionRef,
  SessionState,
  StateChange,
  StoredEvent,
} from "../session-log.ts";
import * as rules from "../state-machine.ts";
import { Doorbell } from "../store/doorbell.ts";
import { incarnationOf, type LastWord, SUSPECT_AFTER } from "../takeover.ts";
import { type Journal, type LogImage, memberOf } from "./journal.ts";

/** One process, Map and arrays, the rules of `state-machine.ts`. A journal makes it survive. */
export class MemoryBackend implements LogBackend {
  readonly #clock: Clock;
  readonly #journal: Journal;
  readonly #logs = new Map<string, LogImage>();
  readonly #watchers = new Map<string, Set<LogWatcher>>();
  readonly #workers = new Map<string, number>();
  readonly #heard = new Map<string, LastWord>();
  readonly #bindings: Map<string, SandboxBinding>;
  readonly #pools: Map<string, PoolConfig>;
  readonly #onClosed: () => Promise<void>;
  readonly #workBell: Doorbell;
  readonly #bells: Record<"requests" | "changes", Doorbell>;

  /** `onClosed` runs when the journal has been closed. */
  constructor(deps: { clock: Clock; journal: Journal; onClosed?: () => Promise<void> }) {
    this.#onClosed = deps.onClosed ?? (() => Promise.resolve());
    this.#clock = deps.clock;
    this.#journal = deps.journal;
    for (const log of deps.journal.restored.logs) {
      this.#logs.set(memberOf(log.ref), { ...log, state: { ...rules.NEW_FIELDS, ...log.state } });
    }
    this.#bindings = new Map(deps.journal.restored.bindings);
    this.#pools = new Map(deps.journal.restored.pools);
    this.#workBell = new Doorbell(deps.clock);
    this.#bells = { requests: new Doorbell(deps.clock), changes: new Doorbell(deps.clock) };
  }

  async create(session: CreateSession, gen: string): Promise<{ created: boolean; head: Head }> {
    const ref = { tenant: session.tenant, id: session.id };
    const existing = this.#find(ref);
    const applied = rules.create(
      existing?.state ?? null,
      {
        gen,
        src: session.source,
        wake: session.wake ?? true,
        events: copyExact(session.events),
      },
      this.#around(existing),
    );
    if (applied.reply.word === "OK" && applied.state !== null) {
      const snapshot = structuredClone(session.snapshot);
      const log: LogImage = { ref, state: applied.state, events: [], keys: new Map(), snapshot };
      this.#logs.set(memberOf(ref), log);
      this.#journal.created(log);
      this.#store(log, applied, null);
    }
    const log = this.#find(ref);
    await this.#journal.flush(ref, "committed");
    return { created: applied.reply.word === "OK", head: headOf(log?.state ?? emptyHead) };
  }

  async append(
    ref: SessionRef,
    op: Omit<AppendOp, "known">,
    durability: Durability,
  ): Promise<AppendReply> {
    return await this.#step(ref, durability, (log) => {
      const known = log?.keys.get(op.key)?.first;
      const own = { ...op, known, events: copyExact(op.events) };
      return rules.appendExternal(log?.state ?? null, own, this.#around(log));
    });
  }

  async appendLeased(
    ref: SessionRef,
    op: LeasedAppendOp,
    options: { durability: Durability },
  ): Promise<LeasedAppendReply> {
    return await this.#step(ref, options.durability, (log) =>
      rules.appendLeased(
        log?.state ?? null,
        { ...op, events: copyExact(op.events) },
        this.#around(log),
      ),
    );
  }

  async barrier(ref: SessionRef, op: { token: string; prev: Position }): Promise<BarrierReply> {
    return await this.#step(ref, "committed", (log) =>
      rules.barrier(log?.state ?? null, op, this.#around(log)),
    );
  }

  async release(
    ref: SessionRef,
    op: { token: string; seen: Seq; release: Release },
  ): Promise<ReleaseReply> {
    return await this.#step(ref, "applied", (log) =>
      rules.release(log?.state ?? null, op, this.#around(log)),
    );
  }

  async claim(op: Omit<ClaimOp, "stealExpired"> & { max: number }): Promise<ClaimBatch> {
    const batch: ClaimBatch = { leases: [], unsettled: [] };
    const touched: SessionRef[] = [];
    const now = this.#clock.now();
    const heard = (incarnation: string) => this.#heard.get(incarnation);
    let { suspect, takesSuspect } = op;
    for (const log of this.#claimable(now)) {
      if (batch.leases.length >= op.max) break;
      const { ref } = log;
      const member = memberOf(ref);
      const own = { ...op, suspect, takesSuspect, stealExpired: true };
      const applied = rules.claim(log.state, own, { now, member, heard });
      this.#store(log, applied, log.state);
      touched.push(ref);
      const { reply } = applied;
      if (reply.word === "OK") {
        const { word: _, ...claimed } = reply;
        batch.leases.push({ ref, ...claimed });
        if (claimed.takeover >= SUSPECT_AFTER) [suspect, takesSuspect] = [member, false];
      } else if (reply.word === "UNSETTLED") {
        const { word: _, ...unsettled } = reply;
        batch.unsettled.push({ ref, ...unsettled });
      }
    }
    if (batch.leases.length > 0) {
      this.#heard.set(incarnationOf(`0.${op.nonce}`), { at: now, suspect });
    }
    await Promise.all(touched.map((ref) => this.#journal.flush(ref, "applied")));
    return batch;
  }

  /** Not journalled: after a restart every lease is over anyway. */
  renew(leases: readonly HeldLease[], op: RenewOp): Promise<(Seq | null)[]> {
    const now = this.#clock.now();
    this.#heard.set(op.incarnation, { at: now, suspect: op.suspect });
    const seqs = leases.map(({ ref, token }) => {
      const log = this.#find(ref);
      const applied = rules.renew(log?.state ?? null, { token, ttlMs: op.ttlMs }, { now });
      if (log !== undefined && applied.state !== null) log.state = applied.state;
      return applied.reply;
    });
    return Promise.resolve(seqs);
  }

  async settle(ref: SessionRef, op: SettleOp): Promise<SettleReply> {
    return await this.#step(ref, "applied", (log) =>
      rules.settle(log?.state ?? null, { ...op, events: copyExact(op.events) }, this.#around(log)),
    );
  }

  async wake(ref: SessionRef): Promise<WakeReply> {
    return await this.#step(ref, "applied", (log) =>
      rules.wake(log?.state ?? null, this.#around(log)),
    );
  }

  async head(ref: SessionRef): Promise<Head | null> {
    const log = this.#find(ref);
    return log === undefined ? null : headOf(log.state);
  }

  async snapshotOf(ref: SessionRef): Promise<SessionSnapshot | null> {
    const log = this.#find(ref);
    return log === undefined ? null : structuredClone(log.snapshot);
  }

  async read(ref: SessionRef, page: Page): Promise<StoredEvent[] | null> {
    const log = this.#find(ref);
    if (log === undefined) return null;
    // events[i].seq is i + 1.
    const from = page.after ?? 0;
    const to = Math.min((page.before ?? Number.POSITIVE_INFINITY) - 1, log.events.length);
    const slice = page.reverse
      ? log.events.slice(Math.max(from, to - page.limit), Math.max(from, to)).toReversed()
      : log.events.slice(from, Math.min(to, from + page.limit));
    return copyExact(slice);
  }

  watch(ref: SessionRef, watcher: LogWatcher): () => void {
    const member = memberOf(ref);
    const watchers = this.#watchers.get(member) ?? new Set();
    watchers.add(watcher);
    this.#watchers.set(member, watchers);
    return () => {
      watchers.delete(watcher);
      if (watchers.size === 0 && this.#watchers.get(member) === watchers) {
        this.#watchers.delete(member);
      }
    };
  }

  publishDelta(ref: SessionRef, delta: Delta): void {
    for (const watcher of this.#watchers.get(memberOf(ref)) ?? []) watcher.onDelta?.(delta);
  }

  waitForWork(ms: number, signal: AbortSignal): Promise<void> {
    return this.#workBell.wait(ms, signal);
  }

  heartbeat(worker: string): Promise<void> {
    this.#workers.set(worker, this.#clock.now());
    return Promise.resolve();
  }

  workers(): Promise<{ id: string; seenAt: number }[]> {
    return Promise.resolve([...this.#workers].map(([id, seenAt]) => ({ id, seenAt })));
  }

  async remove(ref: SessionRef): Promise<void> {
    const log = this.#find(ref);
    if (log === undefined) return;
    this.#logs.delete(memberOf(ref));
    await this.#journal.removed(ref);
    await this.#unbindAll(ref);
    this.#hint(ref, log.state.seq);
  }

  async statesOf(refs: readonly SessionRef[]): Promise<(SessionState | null)[]> {
    return refs.map((ref) => {
      const state = this.#find(ref)?.state;
      if (state === undefined) return null;
      return {
        status: state.st,
        why: state.why,
        leased: state.tok !== "",
        epoch: state.ep,
        seq: state.seq,
        lts: state.lts,
      };
    });
  }

  openRequests(): Promise<SandboxRequest[]> {
    const open = [...this.#logs.values()].flatMap(({ ref, state }) =>
      state.hands.map((request) => ({ ref: { ...ref }, ...request })),
    );
    return Promise.resolve(open);
  }

  async answered(request: SandboxRequest): Promise<void> {
    await this.#step(request.ref, "applied", (log) =>
      rules.answered(log?.state ?? null, request.requestId),
    );
  }

  openChanges(): Promise<StateChange[]> {
    const open = [...this.#logs.values()].flatMap(({ ref, state }) =>
      state.change === null ? [] : [{ ref: { ...ref }, ...state.change }],
    );
    return Promise.resolve(open);
  }

  async ackState(change: StateChange): Promise<void> {
    await this.#step(change.ref, "applied", (log) => rules.ackState(log?.state ?? null, change));
  }

  waitForOperatorWork(kind: "requests" | "changes", ms: number, signal: AbortSignal) {
    return this.#bells[kind].wait(ms, signal);
  }

  /** All sessions of the process are looked at anyway. */
  watchPools(): void {}

  async registerPool(pool: PoolRegistration): Promise<PoolConfig> {
    const config = await findPoolCode(pool, (wanted) => {
      const standing = this.#pools.get(wanted.code);
      if (standing !== undefined && standing.uid !== pool.uid) return Promise.resolve(standing);
      this.#pools.set(wanted.code, wanted);
      return Promise.resolve(wanted);
    });
    await this.#journal.shared({ bindings: this.#bindings, pools: this.#pools });
    return config;
  }

  poolConfig(code: string): Promise<PoolConfig | null> {
    return Promise.resolve(this.#pools.get(code) ?? null);
  }

  async bindSandbox(sandboxId: string, binding: SandboxBinding): Promise<void> {
    if (this.#find({ tenant: binding.tenant, id: binding.sessionId }) === undefined) return;
    this.#bindings.set(sandboxId, { ...binding });
    await this.#journal.shared({ bindings: this.#bindings, pools: this.#pools });
  }

  async unbindSandbox(sandboxId: string): Promise<void> {
    if (!this.#bindings.delete(sandboxId)) return;
    await this.#journal.shared({ bindings: this.#bindings, pools: this.#pools });
  }

  async #unbindAll(ref: SessionRef): Promise<void> {
    for (const [sandboxId, { tenant, sessionId }] of this.#bindings) {
      if (tenant === ref.tenant && sessionId === ref.id) await this.unbindSandbox(sandboxId);
    }
  }

  readBinding(sandboxId: string): Promise<SandboxBinding | null> {
    return Promise.resolve(this.#bindings.get(sandboxId) ?? null);
  }

  async readLease(tenant: string, sessionId: string) {
    const state = this.#find({ tenant, id: sessionId })?.state;
    if (state === undefined) return null;
    const { tok: token, ep: epoch, own: owner, st } = state;
    return { token, epoch, owner, terminated: st === "terminated" };
  }

  async close(): Promise<void> {
    this.#workBell.ring();
    await this.#journal.close();
    await this.#onClosed();
  }

  /** Throws LOG_DAMAGED. */
  #find(ref: SessionRef): LogImage | undefined {
    const damage = this.#journal.restored.damaged.get(memberOf(ref));
    if (damage !== undefined) throw damage;
    return this.#logs.get(memberOf(ref));
  }

  #around(log: LogImage | undefined): Surroundings {
    return { now: this.#clock.now(), eventAt: (seq) => log?.events[seq - 1] };
  }

  /** One transition: decided, stored and journalled without a pause in between, then made durable. */
  async #step<Reply>(
    ref: SessionRef,
    durability: Durability,
    transition: (log: LogImage | undefined) => Applied<Reply>,
  ): Promise<Reply> {
    const log = this.#find(ref);
    const applied = transition(log);
    if (log !== undefined) this.#store(log, applied, log.state);
    await this.#journal.flush(ref, durability);
    return applied.reply;
  }

  #store(log: LogImage, applied: Applied<unknown>, before: LogState | null): void {
    const { state, appended, key } = applied;
    if (state === null || state === before) return;
    const now = this.#clock.now();
    const dropped = key === undefined ? [] : rules.expiredKeys(log.keys, now);
    log.state = state;
    log.events.push(...appended);
    for (const old of dropped) log.keys.delete(old);
    if (key !== undefined) log.keys.set(key.key, { first: key.first, ms: now });
    this.#journal.stepped(log, { appended, key: key && { ...key, ms: now }, dropped });
    if (appended.length > 0) this.#hint(log.ref, state.seq);
    if (state.due !== null && state.due <= now) this.#workBell.ring();
    if (state.hands.length > (before?.hands.length ?? 0)) this.#bells.requests.ring();
    if (state.change !== null && state.change !== before?.change) this.#bells.changes.ring();
  }

  #hint(ref: SessionRef, tail: Seq): void {
    for (const watcher of this.#watchers.get(memberOf(ref)) ?? []) watcher.onHint(tail);
  }

  #claimable(now: number): LogImage[] {
    const due = [...this.#logs.values()].flatMap((log) =>
      log.state.due !== null && log.state.due <= now ? [{ log, at: log.state.due }] : [],
    );
    return due
      .toSorted((a, b) => a.at - b.at || (memberOf(a.log.ref) < memberOf(b.log.ref) ? -1 : 1))
      .map(({ log }) => log);
  }
}

function headOf(state: Pick<LogState, "seq" | "lid" | "ch" | "gen" | "st" | "why">): Head {
  return {
    pos: { seq: state.seq, id: state.lid, chain: chainAt(state.ch, state.seq) },
    gen: state.gen,
    status: state.st,
    why: state.why,
  };
}

const emptyHead = { seq: 0, lid: "", ch: "", gen: "", st: "created", why: "" } as const;
