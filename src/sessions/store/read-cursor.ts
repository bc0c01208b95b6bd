import { type Position, positionOf, type Seq, START } from "../session-log.ts";

/**
 * What a lease holder has read and written. `position` is the highest event it knows (for log
 * matching); `seen` is the seq up to which it knows *everything*. They differ while events of
 * others stand unread below a batch of its own.
 */
export class ReadCursor {
  #position: Position = START;
  #seen: Seq = 0;
  #own: { first: Seq; last: Seq }[] = [];

  get position(): Position {
    return this.#position;
  }

  get seen(): Seq {
    return this.#seen;
  }

  /** Answers true when events of others stand unread before this batch. */
  wrote(batch: { first: Seq; last: Position }): boolean {
    const last = batch.last.seq;
    this.#raise(batch.last);
    this.#own.push({ first: batch.first, last });
    this.#join();
    return this.#seen < last;
  }

  /** An event of a forward read that began after `after`. A first read may skip what the holder knows already. */
  read(event: Position, after: Seq): void {
    if (this.#seen === 0 && this.#own.length === 0) this.#seen = after;
    this.#raise(event);
    if (event.seq <= this.#seen + 1) this.#seen = Math.max(this.#seen, event.seq);
    this.#join();
  }

  #raise(to: Position): void {
    if (to.seq > this.#position.seq) this.#position = positionOf(to);
  }

  #join(): void {
    let next = this.#own[0];
    while (next !== undefined && next.first <= this.#seen + 1) {
      this.#seen = Math.max(this.#seen, next.last);
      this.#own.shift();
      next = this.#own[0];
    }
  }
}
