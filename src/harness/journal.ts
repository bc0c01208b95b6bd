import { parseExact } from "../protocol/exact-json.ts";
import type { NewSessionEvent, SessionEvent, SessionEventData } from "../protocol/session-event.ts";
import { withDeadline } from "../runtime/abort.ts";
import type { Clock } from "../runtime/clock.ts";
import { AppError, describeError } from "../runtime/errors.ts";
import { heapBytes } from "../runtime/heap-bytes.ts";
import type {
  EmitResult,
  EventQuery,
  Lease,
  LeaseEmitOptions,
  NewEvent,
  Release,
  StoredEvent,
} from "../sessions/session-log.ts";
import type { MemoryShare } from "./memory-budget.ts";
import {
  applyEvent,
  emptyState,
  SANDBOX_TYPES,
  type SandboxRecord,
  type SessionState,
  sandboxesAt,
  stateAfter,
} from "./session-state.ts";
import { parseEvent } from "./stored-events.ts";

/** Longer than any retry of the store itself; a verb that hangs must not keep a lease alive for ever. */
const VERB_DEADLINE_MS = 30_000;
/** Reading a long log takes longer than one verb; so does waiting until there is room for it. */
const READ_DEADLINE_MS = 120_000;

/**
 * One holder's view of one log: reads and writes go through here one after the other, and the folded
 * state is never behind what was written or announced, so that decisions are taken on all of it.
 */
export class Journal {
  readonly state: SessionState = emptyState();
  /** Aborts when the log can no longer be followed; the reason says why. */
  readonly broken: AbortSignal;
  readonly #lease: Lease;
  readonly #clock: Clock;
  readonly #memory: MemoryShare | undefined;
  readonly #break = new AbortController();
  readonly #listeners = new Set<() => void>();
  #tail: Promise<unknown> = Promise.resolve();
  #stopListening = () => {};
  #ownFrom = Number.POSITIVE_INFINITY;

  constructor(deps: { lease: Lease; clock: Clock; memory?: MemoryShare }) {
    this.#lease = deps.lease;
    this.#clock = deps.clock;
    this.#memory = deps.memory;
    this.broken = this.#break.signal;
  }

  /** Reads the log, from its last compaction on where that is enough, and follows it from then on. */
  async load(): Promise<void> {
    this.#stopListening = this.#lease.onEvents((tail) => {
      if (tail > this.state.seq) this.#follow();
    });
    await this.#exclusive("reading the log", READ_DEADLINE_MS, async () => {
      await this.#readTail();
      await this.#read();
    });
    this.#memory?.hold(this.state.bytes);
    this.#ownFrom = this.state.seq + 1;
  }

  /** Events that were folded, also those that have left the state; as the log has them. */
  async *history(query: Pick<EventQuery, "after" | "before" | "reverse">) {
    const before = Math.min(query.before ?? Number.POSITIVE_INFINITY, this.state.seq + 1);
    for await (const stored of this.#lease.getEvents({ ...query, before })) {
      const event = parseEvent(stored);
      if (event !== undefined) yield event;
    }
  }

  /** Folds what others have appended. */
  refresh(): Promise<void> {
    return this.#exclusive("reading the log", READ_DEADLINE_MS, () => this.#read());
  }

  /**
   * Writes and folds. `more` leaves the state as up to date as `ok` does. A decision to stop (onlyIfTail)
   * holds for the state it was taken on: what was folded while this waited for its turn is `more` too.
   */
  append(events: NewSessionEvent[], options: LeaseEmitOptions = {}): Promise<EmitResult> {
    const decidedAt = this.state.seq;
    return this.#exclusive("appending to the log", VERB_DEADLINE_MS, async () => {
      if (options.onlyIfTail === true && this.state.seq !== decidedAt) {
        return { status: "more", tail: this.state.seq };
      }
      const result = await this.#lease.emitEvents(events.map(toNewEvent), options);
      if (options.release === undefined || result.status === "more")
        await this.#absorb(result, events);
      return result;
    });
  }

  /** `more`: events were folded after the decision, or wait to be; only for `idle` and `suspended`. */
  async release(release: Release): Promise<"released" | "more"> {
    const decidedAt = this.state.seq;
    const decided = release.kind === "idle" || release.kind === "suspended";
    return await this.#exclusive("releasing the session", VERB_DEADLINE_MS, async () => {
      if (decided && this.state.seq !== decidedAt) return "more";
      const result = await this.#lease.release(release);
      if (result === "more") await this.#read();
      return result;
    });
  }

  /** Proves that the lease holds and that everything folded so far is committed. */
  barrier(): Promise<void> {
    return this.#exclusive("the commit barrier", VERB_DEADLINE_MS, () => this.#lease.barrier());
  }

  /** True for an event that this incarnation wrote itself. */
  isOwn(seq: number): boolean {
    return seq >= this.#ownFrom;
  }

  /** Calls back after each fold of events; the returned function ends that. */
  onChange(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Resolves at the next fold, or when the signal aborts. */
  changed(signal: AbortSignal): Promise<void> {
    if (signal.aborted) return Promise.resolve();
    return new Promise((resolve) => {
      const done = () => {
        stop();
        signal.removeEventListener("abort", done);
        resolve();
      };
      const stop = this.onChange(done);
      signal.addEventListener("abort", done, { once: true });
    });
  }

  close(): void {
    this.#stopListening();
    this.#listeners.clear();
  }

  #follow(): void {
    this.refresh().catch((error: unknown) => {
      if (!this.broken.aborted) this.#break.abort(error);
    });
  }

  /** Folds the log's end, read backwards to what its last compaction replaces; without one, all of it. */
  async #readTail(): Promise<void> {
    const tail: StoredEvent[] = [];
    let compaction: SessionEventData<"context.compacted"> | undefined;
    let bytes = 0;
    for await (const stored of this.#lease.getEvents({ reverse: true })) {
      if (stored.seq <= (compaction?.to ?? 0)) break;
      tail.push(stored);
      bytes += heapBytes(stored.data);
      await this.#memory?.reserve(bytes);
      if (stored.type !== "context.compacted") continue;
      const event = parseEvent(stored);
      if (event?.type === "context.compacted") compaction ??= event.data;
    }
    const last = tail[0];
    if (last === undefined) return;
    await this.#stepTo(last);
    if (compaction !== undefined) {
      const { to, sandboxes = await this.#sandboxesUpTo(to) } = compaction;
      Object.assign(this.state, stateAfter(to, sandboxes));
    }
    // From the end of the array, so that each is freed as soon as it is folded.
    for (let next = tail.pop(); next !== undefined; next = tail.pop()) {
      this.#fold(next.seq, parseEvent(next));
    }
  }

  /** For a compaction that does not say: an earlier version wrote it. */
  async #sandboxesUpTo(to: number): Promise<SandboxRecord[]> {
    const state = emptyState();
    for await (const stored of this.#lease.getEvents({ before: to + 1, dataOf: SANDBOX_TYPES })) {
      const event = SANDBOX_TYPES.has(stored.type) ? parseEvent(stored) : undefined;
      if (event !== undefined) applyEvent(state, event);
    }
    return sandboxesAt(state, to);
  }

  /** Reading backwards moves no position: the last event is read once more, and must be the same. */
  async #stepTo(last: StoredEvent): Promise<void> {
    const query = { after: last.seq - 1, before: last.seq + 1 };
    for await (const again of this.#lease.getEvents(query)) {
      if (again.id === last.id) return;
    }
    throw new AppError(
      "SESSION_REWOUND",
      `the log of ${this.#lease.ref.id} changed while it was read`,
    );
  }

  async #read(): Promise<void> {
    const before = this.state.seq;
    for await (const stored of this.#lease.getEvents({ after: before })) {
      this.#fold(stored.seq, parseEvent(stored));
    }
    if (this.state.seq !== before) this.#announce();
  }

  async #absorb(result: EmitResult, events: NewSessionEvent[]): Promise<void> {
    if (result.status === "more" || result.interleaved || result.first !== this.state.seq + 1) {
      await this.#read();
      return;
    }
    for (const [index, event] of events.entries()) {
      const seq = result.first + index;
      this.#fold(seq, { ...event, seq, epoch: this.#lease.epoch, ts: this.#clock.now() });
    }
    this.#announce();
  }

  #fold(seq: number, event: SessionEvent | undefined): void {
    if (seq <= this.state.seq) return;
    if (event === undefined) this.state.seq = seq;
    else applyEvent(this.state, event);
  }

  #announce(): void {
    this.#memory?.hold(this.state.bytes);
    for (const listener of this.#listeners) listener();
  }

  /** One verb at a time: position, state and log move together. */
  #exclusive<T>(what: string, deadlineMs: number, work: () => Promise<T>): Promise<T> {
    const run = this.#tail.then(async () => {
      if (this.#lease.lost.aborted) {
        throw new AppError("SESSION_LEASE_LOST", `the lease of ${this.#lease.ref.id} is lost`);
      }
      return await withDeadline(this.#clock, deadlineMs, what, () => work());
    });
    this.#tail = run.catch(() => {});
    return run;
  }
}

/** The event's data is plain JSON by its schema; a round trip drops members that are undefined. */
export function toNewEvent(event: NewSessionEvent): NewEvent {
  try {
    const data: NewEvent["data"] = parseExact(JSON.stringify(event.data));
    return { id: event.id, type: event.type, data };
  } catch (cause) {
    throw new AppError("INTERNAL", `event ${event.type} is not JSON: ${describeError(cause)}`);
  }
}
