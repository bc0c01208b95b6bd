import type { Clock } from "../runtime/clock.ts";
import type { MemoryUsage } from "../runtime/process-memory.ts";

/**
 * Which sessions a worker can hold in memory. Each has a share, in bytes of the events it keeps. A
 * session that is being read waits until there is room for it; one that grows beyond the whole makes
 * the largest go to another worker. The shares are estimates, so full collections are watched too:
 * when too much stays alive after one, sessions go, and none is claimed for a while.
 */

/** What is counted for a session at least: until its log has been read, and afterwards. */
export const NEWCOMER_BYTES = 256 * 1024;
const LEAST_BYTES = 96 * 1024;
/** A newcomer is expected to be like the last sessions; this is the weight of the latest. */
const LATEST = 0.2;
/** Heap of a worker without sessions: the code, the clients, the metrics. */
const BASE_BYTES = 48 * 1024 * 1024;
/** Beyond this share of the heap V8 collects without end. */
const USABLE = 0.8;
/** Copies of its events while a session makes a request: the events, the messages' JSON, its bytes. */
const COPIES = 3;
/** A worker with a very small heap still takes one ordinary session. */
const LEAST_BUDGET_BYTES = 4 * 1024 * 1024;

/** What may be alive after a full collection, as a share of the heap; and of the container. */
const SHORT_HEAP = 0.85;
const SHORT_CONTAINER = 0.95;
/**
 * Large logs read at once. More would not be faster, and what renews the leases shares the connection and
 * the thread with them.
 */
const READERS = 4;
/** Logs up to this size are read without waiting for others. */
export const SMALL_BYTES = 64 * 1024;
/** Share of the budget up to which logs are read side by side. */
const PLENTY = 0.7;
/** After memory was short nothing is claimed for this long. */
const PAUSE_MS = 5000;
/** Longest wait for room; then another worker may try. */
const WAIT_MS = 10_000;

/** Bytes of events that all sessions of a worker may keep together. */
export function budgetOf(heapLimit: number): number {
  return Math.max(LEAST_BUDGET_BYTES, Math.floor((heapLimit * USABLE - BASE_BYTES) / COPIES));
}

export function isShort(usage: MemoryUsage, heapLimit: number): boolean {
  return usage.liveHeap > heapLimit * SHORT_HEAP || usage.containerShare > SHORT_CONTAINER;
}

/** `no_room`: another worker, or this one later. `too_large`: no worker of this size can hold it. */
export class MemoryShortError extends Error {
  readonly kind: "no_room" | "too_large";

  constructor(kind: "no_room" | "too_large", message: string) {
    super(message);
    this.name = "MemoryShortError";
    this.kind = kind;
  }
}

/** One session's part of the budget, from claim to release. */
export interface MemoryShare {
  readonly bytes: number;
  /** Aborts when the session is to be given up at its next boundary to make room. */
  readonly leave: AbortSignal;
  /** Aborts when that took too long: break off. */
  readonly hard: AbortSignal;
  /**
   * While the log is read, until `hold`: resolves when this many bytes may be kept, rejects with
   * MemoryShortError.
   */
  reserve(bytes: number): Promise<void>;
  /** The log has been read, or has grown: so much is kept now. */
  hold(bytes: number): void;
  close(): void;
}

export class MemoryBudget {
  readonly limit: number;
  readonly #clock: Clock;
  readonly #heapLimit: number;
  readonly #shares = new Set<Share>();
  /** Readers of large logs, one after the other; the first holds the gate. */
  readonly #line: Share[] = [];
  readonly #readers = new Set<Share>();
  readonly #waiters = new Set<() => void>();
  #expected = NEWCOMER_BYTES;
  #pausedUntil = Number.NEGATIVE_INFINITY;

  constructor(deps: { heapLimit: number; clock: Clock }) {
    this.#heapLimit = deps.heapLimit;
    this.#clock = deps.clock;
    this.limit = budgetOf(deps.heapLimit);
  }

  get used(): number {
    return sumOf(this.#shares);
  }

  /** How many more sessions may be claimed. One always may when none is held. */
  capacity(): number {
    if (this.#shares.size === 0) return Math.max(1, Math.floor(this.limit / this.#expected));
    const paused = this.#clock.monotonic() < this.#pausedUntil;
    if (paused || this.#line.some((share) => share.waiting)) return 0;
    return Math.max(0, Math.floor((this.limit - this.used) / this.#expected));
  }

  open(): MemoryShare {
    const share = new Share(this.#expected, {
      begin: () => this.#mayRead(share),
      reserve: (bytes) => this.#admit(share, bytes),
      changed: () => this.#changed(),
      closed: () => {
        this.#shares.delete(share);
        this.#readers.delete(share);
        this.#leaveLine(share);
        this.#changed();
      },
      loaded: () => {
        const latest = Math.max(share.bytes, NEWCOMER_BYTES);
        this.#readers.delete(share);
        this.#expected += (latest - this.#expected) * LATEST;
        this.#leaveLine(share);
      },
    });
    this.#shares.add(share);
    return share;
  }

  /** After a full collection. Answers how many sessions were asked to go. */
  collected(usage: MemoryUsage): number {
    if (!isShort(usage, this.#heapLimit)) return 0;
    this.#pausedUntil = this.#clock.monotonic() + PAUSE_MS;
    const leaving = [...this.#shares].filter((share) => share.leave.aborted);
    const stuck = leaving.find((share) => !share.hard.aborted);
    if (stuck !== undefined) {
      stuck.breakOff();
      return 0;
    }
    const largest = largestOf([...this.#shares].filter((share) => !share.leave.aborted));
    largest?.goAway();
    return largest === undefined ? 0 : 1;
  }

  async #mayRead(share: Share): Promise<void> {
    while (this.#readers.size >= READERS && !share.leave.aborted) await this.#nextChange(WAIT_MS);
    this.#readers.add(share);
    share.hasBegun = true;
  }

  async #admit(share: Share, bytes: number): Promise<void> {
    if (bytes > this.limit) {
      throw new MemoryShortError(
        "too_large",
        `the session's log since its last summary takes more than the ${megabytes(this.limit)} MB that a harness of this pool has for sessions; raise spec.resources.memory of the HarnessPool`,
      );
    }
    let until: number | undefined;
    while (!this.#grants(share, bytes)) {
      if (!this.#line.includes(share)) this.#line.push(share);
      const first = this.#line[0] === share;
      if (first) until ??= this.#clock.monotonic() + WAIT_MS;
      const left = until === undefined ? WAIT_MS : until - this.#clock.monotonic();
      const turnedAway = !first && this.#line[0]?.waiting === true;
      if (left <= 0 || turnedAway || share.leave.aborted) {
        throw new MemoryShortError("no_room", "this worker has no room for the session");
      }
      share.waiting = first;
      // Those behind give way at once: what they hold may be the room that is missing.
      if (first) this.#wakeAll();
      await this.#nextChange(left);
    }
    share.bytes = bytes;
    share.waiting = false;
  }

  /** While there is plenty all read at once; of what is left after that, one after the other. */
  #grants(share: Share, bytes: number): boolean {
    const used = sumOf(this.#begun()) - share.bytes + bytes;
    const isNext = this.#line.length === 0 || this.#line[0] === share;
    return used <= this.limit * PLENTY || (isNext && used <= this.limit);
  }

  /** What a session that has read nothing will take up is only expected: nobody makes room for that. */
  #begun(): Share[] {
    return [...this.#shares].filter((share) => share.hasBegun);
  }

  /** A session has grown or gone. */
  #changed(): void {
    for (;;) {
      const staying = this.#begun().filter((share) => !share.leave.aborted);
      if (staying.length < 2 || sumOf(staying) <= this.limit) break;
      largestOf(staying)?.goAway();
    }
    this.#wakeAll();
  }

  #leaveLine(share: Share): void {
    const at = this.#line.indexOf(share);
    if (at >= 0) this.#line.splice(at, 1);
    share.waiting = false;
    this.#wakeAll();
  }

  #wakeAll(): void {
    const waiters = [...this.#waiters];
    this.#waiters.clear();
    for (const wake of waiters) wake();
  }

  #nextChange(ms: number): Promise<void> {
    return new Promise((resolve) => {
      const wake = () => {
        cancel();
        this.#waiters.delete(wake);
        resolve();
      };
      const cancel = this.#clock.timer(ms, wake);
      this.#waiters.add(wake);
    });
  }
}

interface ShareHooks {
  begin(): Promise<void>;
  reserve(bytes: number): Promise<void>;
  loaded(): void;
  changed(): void;
  closed(): void;
}

class Share implements MemoryShare {
  bytes: number;
  hasBegun = false;
  /** First in line, and there is no room for it yet. */
  waiting = false;
  readonly #hooks: ShareHooks;
  readonly #leave = new AbortController();
  readonly #hard = new AbortController();
  #isLoaded = false;

  constructor(bytes: number, hooks: ShareHooks) {
    this.bytes = bytes;
    this.#hooks = hooks;
  }

  get leave(): AbortSignal {
    return this.#leave.signal;
  }

  get hard(): AbortSignal {
    return this.#hard.signal;
  }

  async reserve(bytes: number): Promise<void> {
    if (bytes > SMALL_BYTES && !this.hasBegun) await this.#hooks.begin();
    if (bytes > this.bytes) await this.#hooks.reserve(bytes);
  }

  hold(bytes: number): void {
    this.bytes = Math.max(bytes, LEAST_BYTES);
    this.hasBegun = true;
    if (!this.#isLoaded) this.#hooks.loaded();
    this.#isLoaded = true;
    this.#hooks.changed();
  }

  close(): void {
    this.#hooks.closed();
  }

  goAway(): void {
    this.#leave.abort();
  }

  breakOff(): void {
    this.#hard.abort();
  }
}

function sumOf(shares: Iterable<Share>): number {
  let sum = 0;
  for (const { bytes } of shares) sum += bytes;
  return sum;
}

function largestOf(shares: readonly Share[]): Share | undefined {
  return shares.toSorted((a, b) => b.bytes - a.bytes)[0];
}

function megabytes(bytes: number): number {
  return Math.floor(bytes / 1024 / 1024);
}
