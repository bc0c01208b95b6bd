import type { Redis } from "ioredis";
import type { Clock } from "../../runtime/clock.ts";
import { AppError } from "../../runtime/errors.ts";
import type { SessionLogMetrics } from "../metrics.ts";

/** Longest time one WAIT blocks its connection. */
const WAIT_MS = 1000;

/**
 * Makes the writes of one connection committed: WAIT covers everything the connection wrote before
 * it. Writes that end while a WAIT is in flight share the next one
 * (docs/design/session-log.md#connections).
 */
export class GroupCommit {
  readonly #deps: { clock: Pick<Clock, "monotonic">; metrics?: SessionLogMetrics | undefined };
  readonly #connection: Redis;
  readonly #replicas: number;
  #inFlight: Promise<unknown> = Promise.resolve();
  #next: Promise<number> | undefined;

  constructor(
    connection: Redis,
    replicas: number,
    deps: { clock: Pick<Clock, "monotonic">; metrics?: SessionLogMetrics | undefined },
  ) {
    this.#connection = connection;
    this.#replicas = replicas;
    this.#deps = deps;
  }

  /** Call after the reply to the write. Rejects when too few replicas confirmed: write the same again. */
  async committed(): Promise<void> {
    const start = this.#deps.clock.monotonic();
    const acknowledged = await this.#join();
    this.#deps.metrics?.commitWait.observe((this.#deps.clock.monotonic() - start) / 1000);
    if (acknowledged < this.#replicas) throw new NotReplicated(acknowledged, this.#replicas);
  }

  #join(): Promise<number> {
    this.#next ??= this.#inFlight.then(() => {
      this.#next = undefined;
      const wait = this.#connection.wait(this.#replicas, WAIT_MS);
      this.#inFlight = wait.catch(() => {});
      return wait;
    });
    return this.#next;
  }
}

/** Written, but not on enough replicas yet: the outcome is unknown until a later WAIT says so. */
class NotReplicated extends Error {
  constructor(acknowledged: number, wanted: number) {
    super(`${acknowledged} of ${wanted} replicas confirmed the write`);
    this.name = "NotReplicated";
  }
}

/** For a mode without WAIT: the reply itself is the commit. */
export const replyIsCommit = { committed: () => Promise.resolve() };

export function checkReplicas(n: number): void {
  if (!Number.isInteger(n) || n < 1) {
    throw new AppError("CONFIG_INVALID", `redis commit mode "replicas" needs n of 1 or more`);
  }
}
