import type { LogBackend } from "../../../src/sessions/backend.ts";
import type {
  Lease,
  OperatorLog,
  PoolKey,
  Position,
  SessionLog,
  SessionRef,
  SessionStore,
  StoredEvent,
  TailItem,
  WakeQueue,
} from "../../../src/sessions/session-log.ts";
import type { LeaseTimings } from "../../../src/sessions/store/backed-queue.ts";
import { TEST_POOL } from "../../builders/sessions.ts";

/** A store for one test, and a way to let its time pass. */
export interface StoreUnderTest {
  store: SessionStore;
  backend: LogBackend;
  /** Lets `ms` of the store's time pass; other promises get their turn meanwhile. */
  pass: (ms: number) => Promise<void>;
  /** Names of whatever the store still keeps of a session; for the test of deletion. */
  traces: (ref: SessionRef) => Promise<string[]>;
  close(): Promise<void>;
}
/** Opens a store with these timings of its leases. */
export type OpenStore = (timings: LeaseTimings) => Promise<StoreUnderTest>;

interface SetUpStore extends Pick<StoreUnderTest, "store" | "backend" | "pass" | "traces"> {
  log: SessionLog;
  operator: OperatorLog;
  rig: Rig;
}
export type SetUp = (timings?: LeaseTimings) => Promise<SetUpStore>;

export const CONTRACT_POOLS: PoolKey[] = [TEST_POOL];
/** Leases in these tests; short, because some stores live in real time. */
export const CONTRACT_TIMINGS: LeaseTimings = { ttlMs: 400, renewMs: 100, pollMs: 20 };
const DEADLINE_MS = 8000;

export class Rig {
  readonly #under: StoreUnderTest;

  constructor(under: StoreUnderTest) {
    this.#under = under;
  }

  worker(id: string): TestWorker {
    return this.wrap(this.#under.store.queue(id));
  }

  wrap(queue: WakeQueue): TestWorker {
    return new TestWorker(queue, this);
  }

  async until(condition: () => boolean): Promise<void> {
    for (let waited = 0; !condition(); waited += 10) {
      if (waited > DEADLINE_MS) throw new Error("what the test waits for did not happen");
      await this.#under.pass(10);
    }
  }

  pass(ms: number): Promise<void> {
    return this.#under.pass(ms);
  }

  readAll(lease: Lease): Promise<StoredEvent[]> {
    return all(lease.getEvents({ after: lease.position().seq }));
  }

  /** The first `n` items; fails when they do not come. */
  async take<T>(source: (signal: AbortSignal) => AsyncIterable<T>, n: number): Promise<T[]> {
    const collected = this.#collect(source, n);
    await this.until(() => collected.items.length >= n);
    await collected.stop();
    return collected.items;
  }

  async takeFor<T>(source: (signal: AbortSignal) => AsyncIterable<T>, ms: number): Promise<T[]> {
    const collected = this.#collect(source, Number.POSITIVE_INFINITY);
    await this.#under.pass(ms);
    await collected.stop();
    return collected.items;
  }

  tail(ref: SessionRef, after: Position | null, deltas = false) {
    const collected = this.#collect(
      (signal) => this.#under.store.log.tailEvents(ref, { after, deltas, signal }),
      Number.POSITIVE_INFINITY,
    );
    const isEvent = (item: TailItem) => item.kind === "event";
    return {
      ...collected,
      seqs: () => collected.items.filter(isEvent).map(({ event: { seq } }) => seq),
    };
  }

  #collect<T>(source: (signal: AbortSignal) => AsyncIterable<T>, n: number) {
    const stop = new AbortController();
    const items: T[] = [];
    const done = (async () => {
      for await (const item of source(stop.signal)) {
        items.push(item);
        if (items.length >= n) return;
      }
    })();
    return {
      items,
      stop: async () => {
        stop.abort();
        await this.#under.pass(1);
        await done;
      },
    };
  }
}

export class TestWorker {
  readonly queue: WakeQueue;
  readonly #rig: Rig;

  constructor(queue: WakeQueue, rig: Rig) {
    this.queue = queue;
    this.#rig = rig;
  }

  async claimOne(): Promise<Lease> {
    const [lease] = await this.#claim(1, (taken) => this.#rig.until(() => taken.length > 0));
    if (lease === undefined) throw new Error("no lease");
    return lease;
  }

  /** What can be had within `ms`, at most `max`. */
  tryClaim(max: number, ms: number): Promise<Lease[]> {
    return this.#claim(max, async (taken) => {
      for (let waited = 0; waited < ms && taken.length < max; waited += 10)
        await this.#rig.pass(10);
    });
  }

  /** Stops without giving anything up, as kill -9 does. */
  async die(): Promise<void> {
    await this.queue.close();
  }

  async #claim(max: number, wait: (taken: Lease[]) => Promise<void>): Promise<Lease[]> {
    const stop = new AbortController();
    const taken: Lease[] = [];
    const loop = (async () => {
      const options = { capacity: () => max - taken.length, signal: stop.signal };
      for await (const lease of this.queue.claim(options)) taken.push(lease);
    })();
    await wait(taken);
    stop.abort();
    await this.#rig.pass(1);
    await loop;
    return taken;
  }
}

export async function all<T>(source: AsyncIterable<T>): Promise<T[]> {
  const items: T[] = [];
  for await (const item of source) items.push(item);
  return items;
}

export async function errorOf(work: Promise<unknown>): Promise<unknown> {
  try {
    await work;
  } catch (error) {
    return error;
  }
  throw new Error("it did not fail");
}

export async function codeOf(work: Promise<unknown>): Promise<unknown> {
  const error = await errorOf(work);
  return typeof error === "object" && error !== null && "code" in error ? error.code : error;
}
