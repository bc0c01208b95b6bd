import type { Clock } from "../../runtime/clock.ts";

/**
 * When each partition last answered this process, by the server's clock, and how long the process
 * has asked nothing of it since then by its own choice. What lies between the two is time that the
 * server let it wait: so a script can tell that the server stood still (see prelude.lua).
 */
export class Contacts {
  readonly #clock: Pick<Clock, "monotonic">;
  readonly #partitions = new Map<string, { at: number; endedAt: number }>();

  constructor(clock: Pick<Clock, "monotonic">) {
    this.#clock = clock;
  }

  /** Makes one call; `work` gets the script's two arguments and answers with the server's time. */
  async call<T extends { at: number }>(
    partition: string,
    work: (contact: [seen: number | "", quietMs: number]) => Promise<T>,
  ): Promise<T> {
    const known = this.#partitions.get(partition);
    const quiet = known === undefined ? 0 : this.#clock.monotonic() - known.endedAt;
    try {
      const reply = await work([known?.at ?? "", Math.floor(quiet)]);
      this.#partitions.set(partition, { at: reply.at, endedAt: 0 });
      return reply;
    } finally {
      // A call that failed was no quiet time either.
      const last = this.#partitions.get(partition);
      if (last !== undefined) last.endedAt = this.#clock.monotonic();
    }
  }
}
