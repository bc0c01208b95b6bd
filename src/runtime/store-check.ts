import { withDeadline } from "./abort.ts";
import type { Clock } from "./clock.ts";
import { describeError } from "./errors.ts";
import type { Runnable } from "./group.ts";
import type { Logger } from "./logger.ts";

const EVERY_MS = 2000;
/** A store that answers may have become one that cannot be used: another server at its address. */
const PROBE_EVERY_MS = 30_000;
const DEADLINE_MS = 5000;

export interface StoreCheckDeps {
  /** Any question that the session store has to answer. */
  ask: () => Promise<unknown>;
  /** Throws why the store cannot be relied upon, as at the start. */
  probe?: () => Promise<void>;
  clock: Clock;
  logger: Logger;
}

/**
 * Asks the session store for an answer now and then: `problem` is for `/readyz`, and an outage is
 * one line in the log when it begins and one when it ends.
 */
export class StoreCheck implements Runnable {
  readonly name = "store-check";
  readonly #deps: StoreCheckDeps;
  #problem: string | undefined;
  /** What the last probe found. */
  #unfit: string | undefined;
  #since = 0;

  constructor(deps: StoreCheckDeps) {
    this.#deps = deps;
  }

  problem(): string | undefined {
    return this.#problem ?? this.#unfit;
  }

  async run(signal: AbortSignal): Promise<void> {
    const { ask, probe, clock } = this.#deps;
    // The process has probed at its start.
    let probedAt = clock.monotonic();
    while (!signal.aborted) {
      try {
        await withDeadline(clock, DEADLINE_MS, "asking the session store", ask);
        this.#answered();
      } catch (error) {
        if (!signal.aborted) this.#failed(describeError(error));
      }
      const due = clock.monotonic() - probedAt >= PROBE_EVERY_MS;
      if (probe !== undefined && this.#problem === undefined && due) {
        this.#unfit = await probe().then(() => undefined, describeError);
        probedAt = clock.monotonic();
      }
      // Rejects when the process is to stop; the loop's condition sees that.
      await clock.sleep(EVERY_MS, signal).catch(() => {});
    }
  }

  #failed(why: string): void {
    const { clock, logger } = this.#deps;
    if (this.#problem === undefined) {
      this.#since = clock.monotonic();
      logger.warn({ err: why }, "session store does not answer");
    }
    this.#problem = `the session store does not answer: ${why}`;
  }

  #answered(): void {
    if (this.#problem === undefined) return;
    const { clock, logger } = this.#deps;
    const durationMs = Math.round(clock.monotonic() - this.#since);
    logger.info({ durationMs }, "session store answers again");
    this.#problem = undefined;
  }
}
