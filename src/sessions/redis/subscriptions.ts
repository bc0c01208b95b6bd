import type { Redis } from "ioredis";
import type { Clock } from "../../runtime/clock.ts";
import type { Logger } from "../../runtime/logger.ts";
import { describeTrouble } from "./redis-errors.ts";

/** A subscriber that hears nothing cannot know whether its connection lives; so it asks. */
const PING_MS = 5000;

export interface Subscriber {
  onMessage(message: string): void;
  /** Messages may have been missed. */
  onGap(): void;
}

/** Sharded pub/sub over one connection; channels are shared by those who listen to them. */
export class Subscriptions {
  readonly #deps: { connection: Redis; clock: Clock; logger: Logger };
  readonly #subscribers = new Map<string, Set<Subscriber>>();
  #cancelPing: (() => void) | undefined;

  constructor(deps: { connection: Redis; clock: Clock; logger: Logger }) {
    this.#deps = deps;
    deps.connection.on("smessage", (channel: string, message: string) => {
      for (const each of this.#subscribers.get(channel) ?? []) each.onMessage(message);
    });
    deps.connection.on("ready", () => this.#missed());
  }

  /** The returned function ends it. */
  add(channel: string, subscriber: Subscriber): () => void {
    const listeners = this.#subscribers.get(channel) ?? new Set();
    listeners.add(subscriber);
    if (listeners.size === 1) {
      this.#subscribers.set(channel, listeners);
      // What was appended before the subscription stood has to be looked for.
      void this.#send(this.#deps.connection.ssubscribe(channel)).then(() => {
        for (const each of listeners) each.onGap();
      });
    }
    this.#cancelPing ??= this.#schedulePing();
    return () => {
      if (!listeners.delete(subscriber) || listeners.size > 0) return;
      this.#subscribers.delete(channel);
      void this.#send(this.#deps.connection.sunsubscribe(channel));
    };
  }

  close(): void {
    this.#cancelPing?.();
    this.#subscribers.clear();
    this.#deps.connection.disconnect();
  }

  /** Not getting through is no failure: readers look at the log from time to time as well. */
  async #send(command: Promise<unknown>): Promise<void> {
    try {
      await command;
    } catch (error) {
      this.#deps.logger.debug({ err: describeTrouble(error) }, "subscribing failed");
    }
  }

  #missed(): void {
    for (const listeners of this.#subscribers.values()) {
      for (const each of listeners) each.onGap();
    }
  }

  #schedulePing(): () => void {
    return this.#deps.clock.timer(PING_MS, () => {
      this.#cancelPing = undefined;
      if (this.#subscribers.size === 0) return;
      void this.#send(this.#deps.connection.ping());
      this.#cancelPing = this.#schedulePing();
    });
  }
}
