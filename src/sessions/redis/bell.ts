import type { Redis } from "ioredis";
import type { Clock } from "../../runtime/clock.ts";
import type { Logger } from "../../runtime/logger.ts";
import { Doorbell } from "../store/doorbell.ts";
import { BLOCK_SECONDS } from "./connection.ts";
import { describeTrouble } from "./redis-errors.ts";

const PAUSE_AFTER_TROUBLE_MS = 500;

/**
 * Waits on bell lists with BLPOP while somebody waits here. Only a hint: whoever waits also looks
 * by itself from time to time, so a lost hint or a dead connection costs time, never work.
 */
export class RedisBell {
  readonly #deps: { connection: Redis; clock: Clock; logger: Logger; keys: () => string[] };
  readonly #doorbell: Doorbell;
  #waiting = 0;
  #listening = false;
  #closed = false;

  constructor(deps: { connection: Redis; clock: Clock; logger: Logger; keys: () => string[] }) {
    this.#deps = deps;
    this.#doorbell = new Doorbell(deps.clock);
  }

  async wait(ms: number, signal: AbortSignal): Promise<void> {
    this.#waiting += 1;
    if (!this.#listening) void this.#listen();
    await this.#doorbell.wait(ms, signal);
    this.#waiting -= 1;
  }

  close(): void {
    this.#closed = true;
    this.#doorbell.ring();
    this.#deps.connection.disconnect();
  }

  async #listen(): Promise<void> {
    this.#listening = true;
    while (this.#waiting > 0 && !this.#closed) {
      const keys = this.#deps.keys();
      if (keys.length === 0) {
        await this.#deps.clock.sleep(PAUSE_AFTER_TROUBLE_MS);
        continue;
      }
      try {
        const hint = await this.#deps.connection.blpop(keys, BLOCK_SECONDS);
        if (hint !== null) this.#doorbell.ring();
      } catch (error) {
        if (this.#closed) break;
        this.#deps.logger.debug({ err: describeTrouble(error) }, "waiting for the bell failed");
        await this.#deps.clock.sleep(PAUSE_AFTER_TROUBLE_MS);
      }
    }
    this.#listening = false;
  }
}
