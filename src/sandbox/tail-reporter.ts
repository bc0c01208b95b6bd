import type { Clock } from "../runtime/clock.ts";
import { TAIL_BYTES } from "./runner-protocol.ts";

/** Output in bursts is told this often, the first of it at once. */
const INTERVAL_MS = 100;

/** Tells the last bytes that a call has printed, as long as it runs. */
export class TailReporter {
  readonly #clock: Clock;
  readonly #report: (tail: Buffer) => void;
  #tail = Buffer.alloc(0);
  #reportedMs = Number.NEGATIVE_INFINITY;
  #cancel: (() => void) | undefined;

  constructor(clock: Clock, report: (tail: Buffer) => void) {
    this.#clock = clock;
    this.#report = report;
  }

  /** The buffer may be reused by the caller. */
  write(chunk: Buffer): void {
    const last = chunk.subarray(-TAIL_BYTES);
    const room = TAIL_BYTES - last.length;
    const kept = this.#tail.subarray(Math.max(0, this.#tail.length - room));
    this.#tail = Buffer.concat([kept, last]);
    if (this.#cancel !== undefined) return;
    const wait = this.#reportedMs + INTERVAL_MS - this.#clock.monotonic();
    if (wait <= 0) this.#now();
    else this.#cancel = this.#clock.timer(wait, () => this.#now());
  }

  close(): void {
    this.#cancel?.();
  }

  #now(): void {
    this.#cancel = undefined;
    this.#reportedMs = this.#clock.monotonic();
    this.#report(this.#tail);
  }
}
