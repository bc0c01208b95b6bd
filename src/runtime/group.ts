import { describeError } from "./errors.ts";
import type { Logger } from "./logger.ts";

/** Something that runs until its signal aborts; it resolves when all it started is over. */
export interface Runnable {
  name: string;
  run(signal: AbortSignal): Promise<void>;
}

/**
 * Runs parts side by side until `signal` aborts or one of them ends or fails; then stops them in
 * reverse order. The first failure wins, so that the cause is not hidden by its effects.
 */
export async function runGroup(
  parts: readonly Runnable[],
  signal: AbortSignal,
  logger: Logger,
): Promise<void> {
  let failure: Error | undefined;
  const stop = new AbortController();
  const running = parts.map((part) => {
    const controller = new AbortController();
    const done = part.run(controller.signal).then(
      () => {
        if (!signal.aborted && !stop.signal.aborted) {
          failure ??= new Error(`${part.name} ended although it should run on`);
        }
        stop.abort();
      },
      (error: unknown) => {
        if (!controller.signal.aborted) {
          failure ??= Error.isError(error) ? error : new Error(describeError(error));
          logger.error({ part: part.name, err: describeError(error) }, "part failed");
        }
        stop.abort();
      },
    );
    return { part, controller, done };
  });
  await new Promise<void>((resolve) => {
    for (const source of [signal, stop.signal]) {
      if (source.aborted) resolve();
      else source.addEventListener("abort", () => resolve(), { once: true });
    }
  });
  for (const { controller, done } of running.toReversed()) {
    controller.abort();
    await done;
  }
  if (failure !== undefined) throw failure;
}
