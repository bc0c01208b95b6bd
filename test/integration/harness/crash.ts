import type { SandboxClient } from "../../../src/protocol/sandbox-client.ts";
import type { Lease, WakeQueue } from "../../../src/sessions/session-log.ts";
import { withLeases } from "./leases.ts";

/** What a dead process does with a promise: nothing, for ever. */
const never = <T>(): Promise<T> => new Promise<T>(() => {});

/**
 * Kills a worker at its n-th write: `before` it reaches the log, or `after`, when the reply is lost.
 * A dead worker renews nothing, answers nothing and starts nothing.
 */
export class CrashPlan {
  readonly #at: number;
  readonly #when: "before" | "after";
  #writes = 0;
  #queue: WakeQueue | undefined;
  dead = false;

  constructor(at: number, when: "before" | "after") {
    this.#at = at;
    this.#when = when;
  }

  queue(queue: WakeQueue): WakeQueue {
    this.#queue = queue;
    return withLeases(queue, async (lease) =>
      this.dead ? await never<Lease>() : this.#lease(lease),
    );
  }

  sandboxClient(client: SandboxClient): SandboxClient {
    const alive = async <T>(work: () => Promise<T>): Promise<T> => {
      if (this.dead) return await never<T>();
      const value = await work();
      return this.dead ? await never<T>() : value;
    };
    return {
      execute: (address, request, signal) => alive(() => client.execute(address, request, signal)),
      result: (address, id, ms, signal) => alive(() => client.result(address, id, ms, signal)),
      cancel: (address, id, signal) => alive(() => client.cancel(address, id, signal)),
      ack: (address, ids, signal) => alive(() => client.ack(address, ids, signal)),
      repositories: (address, request, signal) =>
        alive(() => client.repositories(address, request, signal)),
      tools: (address, signal) => alive(() => client.tools(address, signal)),
    };
  }

  #lease(lease: Lease): Lease {
    const write = async <T>(work: () => Promise<T>): Promise<T> => {
      if (this.dead) return await never<T>();
      this.#writes += 1;
      const fatal = this.#writes === this.#at;
      if (fatal && this.#when === "before") return await this.#die<T>();
      const value = await work();
      return fatal || this.dead ? await this.#die<T>() : value;
    };
    return {
      ref: lease.ref,
      epoch: lease.epoch,
      token: lease.token,
      takeover: lease.takeover,
      previousOwner: lease.previousOwner,
      lost: new AbortController().signal,
      fresh: () => lease.fresh(),
      getSession: () => lease.getSession(),
      getEvents: (query) => lease.getEvents(query),
      position: () => lease.position(),
      emitEvents: (events, options) => write(() => lease.emitEvents(events, options)),
      barrier: () => write(() => lease.barrier()),
      release: (release) => write(() => lease.release(release)),
      abandon: () => {
        if (!this.dead) lease.abandon();
      },
      onEvents: (callback) => lease.onEvents((tail) => (this.dead ? undefined : callback(tail))),
      publishDelta: (id, off, text) => {
        if (!this.dead) lease.publishDelta(id, off, text);
      },
    };
  }

  async #die<T>(): Promise<T> {
    this.dead = true;
    await this.#queue?.close();
    return await never<T>();
  }
}
