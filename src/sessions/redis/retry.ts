import { backoffMs } from "../../runtime/backoff.ts";
import type { Clock } from "../../runtime/clock.ts";
import { AppError, describeError } from "../../runtime/errors.ts";
import type { Rng } from "../../runtime/rng.ts";
import { outcomeUnknown, troubleOf, unavailable } from "./redis-errors.ts";

export interface RetryOptions {
  /** For messages: "appending to session sesn_…". */
  what: string;
  /** No new attempt begins later than this many ms after the first. */
  deadlineMs: number;
  /** Ends with the signal's reason. */
  signal?: AbortSignal | undefined;
  /** The step changes something for which "maybe" is not good enough. */
  writes: boolean;
}

/**
 * Rides out a restart or failover of Redis by sending the same step again; every step of ours may
 * be sent twice. UNAVAILABLE or, when a write may have happened, OUTCOME_UNKNOWN after the deadline.
 */
export async function withRetry<T>(
  deps: { clock: Clock; rng: Pick<Rng, "next"> },
  options: RetryOptions,
  step: () => Promise<T>,
): Promise<T> {
  const start = deps.clock.monotonic();
  let uncertain = false;
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await step();
    } catch (error) {
      options.signal?.throwIfAborted();
      const trouble = troubleOf(error);
      if (error instanceof AppError) throw error;
      if (trouble === "fatal") {
        throw new AppError("INTERNAL", `${options.what} failed: ${describeError(error)}`, {
          cause: error,
        });
      }
      uncertain ||= trouble === "uncertain";
      if (deps.clock.monotonic() - start >= options.deadlineMs) {
        const isUnknown = uncertain && options.writes;
        throw (isUnknown ? outcomeUnknown : unavailable)(options.what, error);
      }
      const delay = backoffMs(attempt, { baseMs: 20, maxMs: 300 }, deps.rng);
      await deps.clock.sleep(delay, options.signal);
    }
  }
}
