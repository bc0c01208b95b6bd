import { WAKING_TYPES } from "../../protocol/session-event.ts";
import type { SessionSnapshot } from "../../protocol/snapshot.ts";
import type { Clock } from "../../runtime/clock.ts";
import { AppError } from "../../runtime/errors.ts";
import type { Rng } from "../../runtime/rng.ts";
import type { LogBackend } from "../backend.ts";
import { checkRef } from "../keys.ts";
import type { SessionLogMetrics } from "../metrics.ts";
import type {
  AppendResult,
  CreateSession,
  Durability,
  EventQuery,
  Head,
  NewEvent,
  Position,
  Seq,
  SessionLog,
  SessionRef,
  StoredEvent,
  TailItem,
} from "../session-log.ts";
import { observeAppend } from "./append-observer.ts";
import { checkEvents, checkSizes } from "./event-limits.ts";
import { sessionClosed, sessionNotFound, sessionQuarantined } from "./log-errors.ts";
import { readEvents } from "./log-reader.ts";
import { tailLog } from "./log-tail.ts";

export interface StoreDeps {
  backend: LogBackend;
  clock: Clock;
  rng: Rng;
  metrics?: SessionLogMetrics | undefined;
}

export interface LogDeps extends StoreDeps {
  /** Ends the whole store. */
  close: () => Promise<void>;
}

/** The contract's external half on any backend. */
export class BackedSessionLog implements SessionLog {
  readonly #deps: LogDeps;

  constructor(deps: LogDeps) {
    this.#deps = deps;
  }

  async createSession(session: CreateSession): Promise<{ created: boolean; head: Head }> {
    checkRef(session);
    checkSizes(session.events);
    return await this.#deps.backend.create(session, this.#deps.rng.id("gen"));
  }

  async wake(ref: SessionRef): Promise<void> {
    const { word } = await this.#deps.backend.wake(ref);
    if (word === "NOSESSION") throw sessionNotFound(ref);
    if (word === "CLOSED") throw sessionClosed(ref);
  }

  async getSession(ref: SessionRef): Promise<{ head: Head; snapshot: SessionSnapshot } | null> {
    const [head, snapshot] = await Promise.all([
      this.#deps.backend.head(ref),
      this.#deps.backend.snapshotOf(ref),
    ]);
    return head === null || snapshot === null ? null : { head, snapshot };
  }

  getEvents(ref: SessionRef, query?: EventQuery): AsyncIterable<StoredEvent> {
    return readEvents(this.#deps.backend, ref, query);
  }

  tailEvents(
    ref: SessionRef,
    options: { after: Position | null; deltas?: boolean; signal: AbortSignal },
  ): AsyncIterable<TailItem> {
    return tailLog(this.#deps, ref, options);
  }

  async emitEvents(
    ref: SessionRef,
    events: NewEvent[],
    options: { idempotencyKey: string; durability?: Durability },
  ): Promise<AppendResult> {
    const result = await this.#append(ref, events, options);
    if (result === "more")
      throw new AppError("INTERNAL", "an append without a condition was put off");
    return result;
  }

  /** For the operator; see its contract. */
  emitWhileIdle(
    ref: SessionRef,
    events: NewEvent[],
    { idempotencyKey, at }: { idempotencyKey: string; at: Seq },
  ): Promise<AppendResult | "more"> {
    return this.#append(ref, events, { idempotencyKey, onlyIfIdleAt: at });
  }

  async #append(
    ref: SessionRef,
    events: NewEvent[],
    options: { idempotencyKey: string; durability?: Durability; onlyIfIdleAt?: Seq },
  ): Promise<AppendResult | "more"> {
    checkEvents(events);
    // Redis keeps its own records between the keys, in fields that begin with NUL.
    if (options.idempotencyKey === "" || options.idempotencyKey.includes("\0")) {
      throw new AppError("INPUT_INVALID", "an append needs an idempotency key, without NUL");
    }
    const durability = options.durability ?? "committed";
    const op = {
      key: options.idempotencyKey,
      wake: events.some((event) => WAKING_TYPES.has(event.type)),
      onlyIfIdleAt: options.onlyIfIdleAt,
      events,
    };
    const reply = await observeAppend(this.#deps, durability, () =>
      this.#deps.backend.append(ref, op, durability),
    );
    switch (reply.word) {
      case "OK":
        return { first: reply.first, last: reply.last, duplicate: false };
      case "DUP":
        return { first: reply.first, last: reply.first + events.length - 1, duplicate: true };
      case "MORE":
        return "more";
      case "NOSESSION":
        throw sessionNotFound(ref);
      case "CLOSED":
        throw sessionClosed(ref);
      case "QUARANTINED":
        throw sessionQuarantined(ref);
    }
  }

  close(): Promise<void> {
    return this.#deps.close();
  }
}
