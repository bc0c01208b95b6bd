import type { SessionSnapshot } from "../../protocol/snapshot.ts";
import type { Clock } from "../../runtime/clock.ts";
import type { AppError } from "../../runtime/errors.ts";
import type { LogBackend } from "../backend.ts";
import type { Claimed, LeasedAppendReply } from "../log-state.ts";
import type { SessionLogMetrics } from "../metrics.ts";
import type {
  EmitResult,
  EventQuery,
  Head,
  Lease,
  LeaseEmitOptions,
  NewEvent,
  Position,
  Release,
  Seq,
  SessionRef,
  StoredEvent,
} from "../session-log.ts";
import { PROGRESS_TYPES } from "../state-machine.ts";
import { observeAppend } from "./append-observer.ts";
import { checkEvents, checkRelease } from "./event-limits.ts";
import { leaseLost, rewound, sessionNotFound } from "./log-errors.ts";
import { readEvents } from "./log-reader.ts";
import { ReadCursor } from "./read-cursor.ts";

export interface LeaseDeps {
  backend: LogBackend;
  clock: Pick<Clock, "monotonic">;
  metrics?: SessionLogMetrics | undefined;
  /** How long after a renewal was sent the lease still counts as fresh, in ms. */
  freshMs: number;
  /** When the claim was sent; ms of the monotonic clock. */
  claimedAt: number;
  /** Called once, when the lease was given up or lost: stop renewing. */
  onOver: (lease: BackedLease, end: LeaseEnd) => void;
  /** Something was written that shows that work on the session gets on. */
  onProgress: (lease: BackedLease) => void;
}

/** `fenced`: another worker has it. `abandoned`: it runs out by itself. */
export type LeaseEnd = "released" | "fenced" | "abandoned";

/** The contract's lease on any backend. Writes go one after the other, each with its ordinal. */
export class BackedLease implements Lease {
  readonly ref: SessionRef;
  readonly epoch: number;
  readonly token: string;
  readonly takeover: number;
  readonly previousOwner: string;
  readonly #deps: LeaseDeps;
  readonly #lost = new AbortController();
  readonly #cursor = new ReadCursor();
  readonly #listeners = new Set<(tail: Seq) => void>();
  #unwatch: (() => void) | undefined;
  #batches = 0;
  #writing: Promise<unknown> = Promise.resolve();
  #writers = 0;
  #tail: Seq;
  #told: Seq = 0;
  #over: string | undefined;
  #ending = false;
  #renewedAt: number;

  constructor(ref: SessionRef, claimed: Claimed, deps: LeaseDeps) {
    this.ref = ref;
    this.epoch = claimed.epoch;
    this.token = claimed.token;
    this.takeover = claimed.takeover;
    this.previousOwner = claimed.previousOwner;
    this.#tail = claimed.seq;
    this.#told = claimed.seq;
    this.#deps = deps;
    this.#renewedAt = deps.claimedAt;
  }

  get lost(): AbortSignal {
    return this.#lost.signal;
  }

  fresh(): boolean {
    const age = this.#deps.clock.monotonic() - this.#renewedAt;
    return this.#over === undefined && age <= this.#deps.freshMs;
  }

  /** A renewal that was sent at `sentAt` found the lease held. */
  renewed(sentAt: number): void {
    this.#renewedAt = sentAt;
  }

  /** A release is under way: that the token holds nothing any more is no loss. */
  get ending(): boolean {
    return this.#ending;
  }

  async getSession(): Promise<{ head: Head; snapshot: SessionSnapshot }> {
    const [head, snapshot] = await Promise.all([
      this.#deps.backend.head(this.ref),
      this.#deps.backend.snapshotOf(this.ref),
    ]);
    if (head === null || snapshot === null) throw sessionNotFound(this.ref);
    return { head, snapshot };
  }

  async *getEvents(query: EventQuery = {}): AsyncGenerator<StoredEvent> {
    for await (const event of readEvents(this.#deps.backend, this.ref, query)) {
      if (query.reverse !== true) this.#cursor.read(event, query.after ?? 0);
      yield event;
    }
  }

  position(): Position {
    return this.#cursor.position;
  }

  emitEvents(events: NewEvent[], options: LeaseEmitOptions = {}): Promise<EmitResult> {
    return this.#inTurn(() => this.#emit(events, options));
  }

  barrier(): Promise<void> {
    return this.#inTurn(async () => {
      const prev = this.#cursor.position;
      const reply = await this.#deps.backend.barrier(this.ref, { token: this.token, prev });
      if (reply.word === "REWOUND") throw rewound(this.ref, reply.seq);
      if (reply.word !== "OK") throw this.lose("another worker has claimed the session");
    });
  }

  onEvents(callback: (tail: Seq) => void): () => void {
    this.#listeners.add(callback);
    this.#unwatch ??= this.#deps.backend.watch(this.ref, {
      onHint: (tail) => {
        if (tail !== null) this.noticeTail(tail);
      },
    });
    return () => {
      this.#listeners.delete(callback);
      if (this.#listeners.size === 0) this.#stopWatching();
    };
  }

  publishDelta(eventId: string, off: number, text: string): void {
    if (this.#over === undefined) this.#deps.backend.publishDelta(this.ref, { eventId, off, text });
  }

  release(release: Release): Promise<"released" | "more"> {
    return this.#inTurn(async () => {
      checkRelease(release);
      const op = { token: this.token, seen: this.#cursor.seen, release };
      this.#ending = true;
      const reply = await this.#deps.backend.release(this.ref, op).catch((error: unknown) => {
        // Not renewed any more, it runs out by itself.
        this.#end("its release failed", "abandoned");
        throw error;
      });
      if (reply.word === "MORE") {
        this.#ending = false;
        this.noticeTail(reply.seq);
        return "more";
      }
      if (reply.word !== "OK") throw this.lose("another worker has claimed the session");
      this.#end("it was released", "released");
      return "released";
    });
  }

  abandon(): void {
    if (this.#over === undefined) this.#lose("its holder has abandoned it", "abandoned");
  }

  /** The log is at least this long: from pub/sub or from a renewal. */
  noticeTail(tail: Seq): void {
    this.#tail = Math.max(this.#tail, tail);
    this.#tell();
  }

  /** Ends the lease as lost to another worker and returns the error that says so. */
  lose(why: string): AppError {
    return this.#lose(why, "fenced");
  }

  #lose(why: string, end: LeaseEnd): AppError {
    const error = leaseLost(this.ref, why);
    this.#end(why, end);
    this.#lost.abort(error);
    return error;
  }

  async #emit(events: NewEvent[], options: LeaseEmitOptions): Promise<EmitResult> {
    checkEvents(events);
    const release = options.release ?? null;
    checkRelease(release);
    const prev = this.#cursor.position;
    const wantsTail = options.onlyIfTail === true || release?.kind === "idle";
    if (wantsTail && this.#cursor.seen < prev.seq) {
      return { status: "more", tail: Math.max(this.#tail, prev.seq) };
    }
    const durability = options.durability ?? "applied";
    const op = {
      token: this.token,
      n: this.#batches + 1,
      prev,
      onlyIfTail: options.onlyIfTail === true,
      release,
      events,
    };
    this.#ending = release !== null;
    try {
      const reply = await observeAppend(this.#deps, durability, () =>
        this.#deps.backend.appendLeased(this.ref, op, { durability, signal: this.#lost.signal }),
      );
      const result = this.#digest(reply, events);
      if (result.status === "ok") {
        if (events.some(({ type }) => PROGRESS_TYPES.has(type))) this.#deps.onProgress(this);
        if (release !== null) this.#end("it was released", "released");
      }
      return result;
    } finally {
      this.#ending = false;
    }
  }

  #digest(reply: LeasedAppendReply, events: NewEvent[]): EmitResult {
    switch (reply.word) {
      case "OK":
      case "DUP": {
        this.#batches += 1;
        const { first, last, chain } = reply;
        const id = events.at(-1)?.id ?? "";
        const interleaved = this.#cursor.wrote({ first, last: { seq: last, id, chain } });
        return { status: "ok", first, last, interleaved, duplicate: reply.word === "DUP" };
      }
      case "MORE":
        this.#tail = Math.max(this.#tail, reply.seq);
        return { status: "more", tail: reply.seq };
      case "REWOUND":
        throw rewound(this.ref, reply.seq);
      case "FENCED":
        throw this.lose("another worker has claimed the session");
      case "NOSESSION":
        throw this.lose("the session has been deleted");
    }
  }

  async #inTurn<T>(work: () => Promise<T>): Promise<T> {
    this.#writers += 1;
    const turn = this.#writing.then(() => {
      if (this.#over !== undefined) throw leaseLost(this.ref, this.#over);
      return work();
    });
    this.#writing = turn.catch(() => {});
    try {
      return await turn;
    } finally {
      this.#writers -= 1;
      this.#tell();
    }
  }

  /** Waits until own writes are known, so that they are not taken for events of others. */
  #tell(): void {
    if (this.#writers > 0 || this.#over !== undefined) return;
    if (this.#tail <= this.#told || this.#tail <= this.#cursor.seen) return;
    this.#told = this.#tail;
    for (const listener of this.#listeners) listener(this.#tail);
  }

  #end(why: string, end: LeaseEnd): void {
    if (this.#over !== undefined) return;
    this.#over = why;
    this.#stopWatching();
    this.#deps.onOver(this, end);
  }

  #stopWatching(): void {
    this.#unwatch?.();
    this.#unwatch = undefined;
  }
}
