import type { Clock } from "./clock.ts";
import { AppError } from "./errors.ts";

/** Rejects with a TIMEOUT error naming `what` when `work` does not settle within `ms`; `work` gets the signal. */
export async function withDeadline<T>(
  clock: Clock,
  ms: number,
  what: string,
  work: (signal: AbortSignal) => Promise<T>,
  parent?: AbortSignal,
): Promise<T> {
  const controller = new AbortController();
  const signal = parent ? AbortSignal.any([parent, controller.signal]) : controller.signal;
  let cancel = () => {};
  const deadline = new Promise<never>((_, reject) => {
    cancel = clock.timer(ms, () => {
      // Made only now: making an error is slow, because it records the stack.
      const message = `${what} did not finish within ${ms} ms`;
      const late = new AppError("TIMEOUT", message, { retryable: true });
      controller.abort(late);
      reject(late);
    });
  });
  try {
    return await Promise.race([work(signal), deadline]);
  } finally {
    cancel();
  }
}

/** Resolves when the signal aborts; at once when it already has. */
export function aborted(signal: AbortSignal): Promise<void> {
  if (signal.aborted) return Promise.resolve();
  return new Promise((resolve) =>
    signal.addEventListener("abort", () => resolve(), { once: true }),
  );
}
