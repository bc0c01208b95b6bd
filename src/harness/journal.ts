import { parseExact } from "../protocol/exact-json.ts";
import type { NewSessionEvent, SessionEvent } from "../protocol/session-event.ts";
import { withDeadline } from "../runtime/abort.ts";
import type { Clock } from "../runtime/clock.ts";
import { AppError, describeError } from "../runtime/errors.ts";
import type {
  EmitResult,
  Lease,
  LeaseEmitOptions,
  NewEvent,
  Release,
} from "../sessions/session-log.ts";
import { applyEvent, emptyState, type SessionState } from "./session-state.ts";
import { parseEvent } from "./stored-events.ts";

/** Longer than any retry of the store itself; a verb that hangs must not keep a lease alive for ever. */
const VERB_DEADLINE_MS = 30_000;
/** Reading a whole log takes longer than one verb. */
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
  readonly #break = new AbortController();
  readonly #listeners = new Set<() => void>();
  #tail: Promise<unknown> = Promise.resolve();
  #stopListening = () => {};
  #ownFrom = Number.POSITIVE_INFINITY;

  constructor(deps: { lease: Lease; clock: Clock }) {
    this.#lease = deps.lease;
    this.#clock = deps.clock;
    this.broken = this.#break.signal;
  }

  /** Reads the whole log and follows it from then on. */
  async load(): Promise<void> {
    this.#stopListening = this.#lease.onEvents((tail) => {
      if (tail > this.state.seq) this.#follow();
    });
    await this.refresh();
    this.#ownFrom = this.state.seq + 1;
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
