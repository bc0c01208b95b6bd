import type { Clock } from "../runtime/clock.ts";
import type { Logger } from "../runtime/logger.ts";

/** Without a failure for so long after an answer it is over: a server that starts answers some calls first. */
const QUIET_MS = 5000;

/**
 * Tells of a Kubernetes API that cannot be reached: one line in the log when that begins and one when
 * it is over, for the whole process. The client tells it of each call; who made the call needs not.
 */
export class ApiOutage {
  readonly #clock: Clock;
  readonly #logger: Logger;
  #since: number | undefined;
  #cancel: (() => void) | undefined;

  constructor({ clock, logger }: { clock: Clock; logger: Logger }) {
    this.#clock = clock;
    this.#logger = logger;
  }

  failed(why: string): void {
    this.#cancel?.();
    this.#cancel = undefined;
    if (this.#since !== undefined) return;
    this.#since = this.#clock.monotonic();
    this.#logger.warn({ err: why }, "kubernetes api not reached; it is tried again");
  }

  answered(): void {
    if (this.#since === undefined || this.#cancel !== undefined) return;
    const durationMs = Math.round(this.#clock.monotonic() - this.#since);
    this.#cancel = this.#clock.timer(QUIET_MS, () => {
      this.#cancel = undefined;
      this.#since = undefined;
      this.#logger.info({ durationMs }, "kubernetes api reached again");
    });
  }

  close(): void {
    this.#cancel?.();
  }
}
