import type { Clock } from "../runtime/clock.ts";
import type { Lease } from "../sessions/session-log.ts";

/** Text for live readers goes out in pieces this far apart: smooth to the eye, cheap for the store. */
const COALESCE_MS = 80;

/** Publishes the text of one answer, under the id its event will have. Never stored, never fails. */
export class DeltaPublisher {
  readonly #lease: Pick<Lease, "publishDelta">;
  readonly #clock: Pick<Clock, "timer">;
  readonly #eventId: string;
  #text = "";
  #published = 0;
  #cancel: (() => void) | undefined;

  constructor(deps: {
    lease: Pick<Lease, "publishDelta">;
    clock: Pick<Clock, "timer">;
    eventId: string;
  }) {
    this.#lease = deps.lease;
    this.#clock = deps.clock;
    this.#eventId = deps.eventId;
  }

  /** All text so far: what a reader may have seen. */
  get text(): string {
    return this.#text;
  }

  push(text: string): void {
    this.#text += text;
    this.#cancel ??= this.#clock.timer(COALESCE_MS, () => this.flush());
  }

  flush(): void {
    this.#cancel?.();
    this.#cancel = undefined;
    const piece = this.#text.slice(this.#published);
    if (piece === "") return;
    this.#lease.publishDelta(this.#eventId, this.#published, piece);
    this.#published = this.#text.length;
  }
}
