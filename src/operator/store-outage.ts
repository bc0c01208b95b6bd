import { Waker } from "../kube/controller.ts";
import type { Informer } from "../kube/informer.ts";
import { objectKey } from "../kube/objects.ts";
import { findCondition } from "../kube/status.ts";
import type { Clock } from "../runtime/clock.ts";
import type { Runnable } from "../runtime/group.ts";
import type { AgentSession } from "./kinds.ts";

export interface StoreOutageDeps {
  /** Why the session store cannot be used now; undefined when it can. */
  problem: () => string | undefined;
  sessions: Informer<AgentSession>;
  clock: Clock;
}

const LOOK_MS = 1_000;
/** A failover or a restart is over by then, and costs no status. */
const OUTAGE_SHOWS_MS = 10_000;
/** Sessions are told one by one: ten thousand of them at once would be an outage of their own. */
const BETWEEN_MS = 100;

/**
 * While the session store is down, the sessions that it holds up say so, and no longer when it is
 * back. Nothing else would wake their controller: what happens to a session is told by the store.
 */
export class StoreOutage implements Runnable {
  readonly name = "store outage";
  readonly #deps: StoreOutageDeps;
  readonly #waker = new Waker();
  readonly watch = this.#waker.watch;
  #since: number | undefined;

  constructor(deps: StoreOutageDeps) {
    this.#deps = deps;
  }

  /** It has lasted for long enough to be shown. */
  lasts(): boolean {
    const { clock } = this.#deps;
    return this.#since !== undefined && clock.monotonic() - this.#since >= OUTAGE_SHOWS_MS;
  }

  async run(signal: AbortSignal): Promise<void> {
    const { clock, problem } = this.#deps;
    // At the start too: what this process' predecessor said may be over.
    let told: boolean | undefined;
    while (!signal.aborted) {
      if (problem() === undefined) this.#since = undefined;
      else this.#since ??= clock.monotonic();
      const lasts = this.lasts();
      if (lasts !== told) this.#wake(lasts ? isHeldUp : saysOutage);
      told = lasts;
      await clock.sleep(LOOK_MS, signal).catch(() => {});
    }
  }

  #wake(concerned: (session: AgentSession) => boolean): void {
    const found = this.#deps.sessions.list().filter(concerned);
    for (const [i, session] of found.entries()) {
      this.#waker.addAfter(objectKey(session), i * BETWEEN_MS);
    }
  }
}

/** It has something to do; one that rests does not notice. */
export function isHeldUp({ status }: AgentSession): boolean {
  return status?.state === "Running" || status?.state === "Pending";
}

function saysOutage({ status }: AgentSession): boolean {
  return findCondition(status?.conditions, "Ready")?.reason === "RedisUnreachable";
}
