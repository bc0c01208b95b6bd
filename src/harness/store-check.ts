import { withDeadline } from "../runtime/abort.ts";
import type { Clock } from "../runtime/clock.ts";
import { describeError } from "../runtime/errors.ts";
import type { Runnable } from "../runtime/group.ts";
import type { WakeQueue } from "../sessions/session-log.ts";

const EVERY_MS = 2000;
const DEADLINE_MS = 5000;

/** Asks the session log for an answer now and then; `problem` is for `/readyz`. */
export class StoreCheck implements Runnable {
  readonly name = "store-check";
  readonly #queue: Pick<WakeQueue, "workers">;
  readonly #clock: Clock;
  #problem: string | undefined;

  constructor(deps: { queue: Pick<WakeQueue, "workers">; clock: Clock }) {
    this.#queue = deps.queue;
    this.#clock = deps.clock;
  }

  problem(): string | undefined {
    return this.#problem;
  }

  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      try {
        await withDeadline(this.#clock, DEADLINE_MS, "asking the session log", () =>
          this.#queue.workers(),
        );
        this.#problem = undefined;
      } catch (error) {
        this.#problem = `the session log does not answer: ${describeError(error)}`;
      }
      // Rejects when the process is to stop; the loop's condition sees that.
      await this.#clock.sleep(EVERY_MS, signal).catch(() => {});
    }
  }
}
