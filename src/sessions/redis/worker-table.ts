import type { Redis } from "ioredis";
import type { Clock } from "../../runtime/clock.ts";
import { partitionKeys } from "../keys.ts";
import type { PoolKey } from "../session-log.ts";

const ALIVE_MS = 10_000;
const FORGOTTEN_MS = 60_000;
/**
 * All workers together poll each partition at most 40 times a second
 * (docs/design/session-log.md#leases-and-takeover).
 */
const POLL_SHARE_MS = 25;

/** Who works on a pool: for people, and to spread the polling. The first partition holds the table. */
export class WorkerTable {
  readonly #connection: Redis;
  readonly #clock: Pick<Clock, "now">;
  readonly #tables: string[];
  #alive = 1;

  constructor(connection: Redis, clock: Pick<Clock, "now">, pools: readonly PoolKey[]) {
    this.#connection = connection;
    this.#clock = clock;
    this.#tables = pools.map(({ code }) => partitionKeys(code, "00").workers);
  }

  async beat(worker: string): Promise<void> {
    const now = this.#clock.now();
    await Promise.all(
      this.#tables.map(async (table) => {
        await this.#connection.zadd(table, now, worker);
        const old = await this.#connection.zrange(table, 0, `${now - FORGOTTEN_MS}`, "BYSCORE");
        if (old.length > 0) await this.#connection.zrem(table, ...old);
      }),
    );
    this.#alive = Math.max(1, (await this.list()).length);
  }

  async list(): Promise<{ id: string; seenAt: number }[]> {
    const since = this.#clock.now() - ALIVE_MS;
    const seen = new Map<string, number>();
    for (const table of this.#tables) {
      const flat = await this.#connection.zrange(table, since, "+inf", "BYSCORE", "WITHSCORES");
      for (let i = 0; i < flat.length; i += 2) seen.set(flat[i] ?? "", Number(flat[i + 1]));
    }
    return [...seen].map(([id, seenAt]) => ({ id, seenAt }));
  }

  pollMs(wanted: number): number {
    return Math.max(wanted, this.#alive * POLL_SHARE_MS);
  }
}
