import type { Rng } from "./rng.ts";

export interface BackoffOptions {
  baseMs: number;
  maxMs: number;
}

/** Full-jitter exponential delay for the given attempt (1 = first retry), in ms; never below half. */
export function backoffMs(
  attempt: number,
  options: BackoffOptions,
  rng: Pick<Rng, "next">,
): number {
  const ceiling = Math.min(options.maxMs, options.baseMs * 2 ** Math.min(attempt - 1, 30));
  return Math.round(ceiling / 2 + (ceiling / 2) * rng.next());
}
