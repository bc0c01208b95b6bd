import { setTimeout as sleep } from "node:timers/promises";
import { describeError } from "../src/runtime/errors.ts";

const FIRST_PAUSE_MS = 10;
/** A look may start a process, and two cores run everything else too. */
const LONGEST_PAUSE_MS = 250;

/**
 * Looks again and again until `look` answers something, and gives that back. Fails after a generous
 * time with what was awaited, and with what the last look threw.
 */
export async function eventually<T>(
  what: string,
  look: () => Promise<T | undefined | false> | T | undefined | false,
  { withinMs = 40_000 }: { withinMs?: number } = {},
): Promise<T> {
  const end = Date.now() + withinMs;
  let last = "";
  for (let pauseMs = FIRST_PAUSE_MS; ; pauseMs = Math.min(LONGEST_PAUSE_MS, pauseMs * 1.5)) {
    try {
      const found = await look();
      if (found !== undefined && found !== false) return found;
      last = "";
    } catch (error) {
      last = `: ${describeError(error)}`;
    }
    if (Date.now() > end) throw new Error(`${what}: not seen within ${withinMs} ms${last}`);
    await sleep(pauseMs);
  }
}
