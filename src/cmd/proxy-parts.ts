import { backoffMs } from "../runtime/backoff.ts";
import { systemClock } from "../runtime/clock.ts";
import { describeError } from "../runtime/errors.ts";
import type { Logger } from "../runtime/logger.ts";
import { systemRng } from "../runtime/rng.ts";

/** What the sidecar and the edge are both made of. */

/** Until it succeeds: the operator may come up after us. */
export async function loadKeys(
  server: { loadKeys(): Promise<void> },
  logger: Logger,
  signal: AbortSignal,
): Promise<void> {
  for (let attempt = 1; !signal.aborted; attempt += 1) {
    try {
      await server.loadKeys();
      return;
    } catch (error) {
      logger.warn({ attempt, err: describeError(error) }, "issuer not reached yet");
    }
    const delay = backoffMs(attempt, { baseMs: 200, maxMs: 5000 }, systemRng);
    // Rejects when the process is to stop; the loop's condition sees that.
    await systemClock.sleep(delay, signal).catch(() => {});
  }
}
