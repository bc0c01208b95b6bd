import { withDeadline } from "../runtime/abort.ts";
import type { Clock } from "../runtime/clock.ts";
import { describeError } from "../runtime/errors.ts";
import type { Runnable } from "../runtime/group.ts";
import type { WakeQueue } from "../sessions/session-log.ts";

const EVERY_MS = 2000;
/** A store that answers may have become one that cannot be used: another server at its address. */
const PROBE_EVERY_MS = 30_000;
const DEADLINE_MS = 5000;

interface StoreCheckDeps {
  queue: Pick<WakeQueue, "workers">;
  /** Throws why the store cannot be relied upon, as at the start. */
  probe(): Promise<void>;
  clock: Clock;
}

/** Asks the session log for an answer now and then; `problem` is for `/readyz`. */
export class StoreCheck implements Runnable {
  readonly name = "store-check";
  readonly #deps: StoreCheckDeps;
  #problem: string | undefined;
  /** What the last probe found. */
  #unfit: string | undefined;

  constructor(deps: StoreCheckDeps) {
    this.#deps = deps;
  }

  problem(): string | undefined {
    return this.#problem ?? this.#unfit;
  }

  async run(signal: AbortSignal): Promise<void> {
    const { clock, queue, probe } = this.#deps;
    // The process has probed at its start.
    let probedAt = clock.monotonic();
    while (!signal.aborted) {
      try {
        await withDeadline(clock, DEADLINE_MS, "asking the session log", () => queue.workers());
        this.#problem = undefined;
      } catch (error) {
        this.#problem = `the session log does not answer: ${describeError(error)}`;
      }
      if (this.#problem === undefined && clock.monotonic() - probedAt >= PROBE_EVERY_MS) {
        this.#unfit = await probe().then(() => undefined, describeError);
        probedAt = clock.monotonic();
      }
      // Rejects when the process is to stop; the loop's condition sees that.
      await clock.sleep(EVERY_MS, signal).catch(() => {});
    }
  }
}
