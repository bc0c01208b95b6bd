import type { Redis } from "ioredis";
import type { Logger } from "../../runtime/logger.ts";
import { describeTrouble } from "./redis-errors.ts";

/**
 * One line when Redis is lost and one when it is back, however many connections a process has: the
 * outage begins with the first connection that fails and ends when all are up. For debugging: the
 * process' check of its store tells the outage, also when Redis holds its connections and is silent.
 */
export class OutageLog {
  readonly #logger: Logger;
  readonly #down = new Set<Redis>();

  constructor(logger: Logger) {
    this.#logger = logger;
  }

  watch(connection: Redis): void {
    connection.on("error", (error: unknown) => {
      if (this.#down.size === 0) this.#logger.debug({ err: describeTrouble(error) }, "redis lost");
      this.#down.add(connection);
    });
    connection.on("ready", () => {
      if (this.#down.delete(connection) && this.#down.size === 0) this.#logger.debug("redis back");
    });
  }
}
