import type { Clock } from "../runtime/clock.ts";
import type { Informer } from "./informer.ts";

export interface ExpectationsDeps {
  clock: Pick<Clock, "monotonic">;
  /** After this long an expectation is given up: the event was missed. Default 60 s. */
  timeoutMs?: number;
}

interface Expected {
  owner: string;
  /** The UID whose disappearance is expected; undefined for a creation. */
  uid: string | undefined;
  sinceMs: number;
}

/**
 * Creates and deletes that the cache has not shown yet. A controller that counts its children asks
 * `satisfied(owner)` first and waits when it is not: counting in a stale cache makes too many.
 * Owners and children are keys (`namespace/name`).
 */
export class Expectations {
  readonly #clock: Pick<Clock, "monotonic">;
  readonly #timeoutMs: number;
  readonly #byChild = new Map<string, Expected>();
  readonly #byOwner = new Map<string, Set<string>>();

  constructor(deps: ExpectationsDeps) {
    this.#clock = deps.clock;
    this.#timeoutMs = deps.timeoutMs ?? 60_000;
  }

  /** Clears expectations as the children's informer shows them. Returns how to stop. */
  follow<P extends { metadata: { uid?: string } }>(informer: Informer<P>): () => void {
    return informer.onChange(({ type, key, object }) => {
      const expected = this.#byChild.get(key);
      if (expected === undefined) return;
      const seen =
        expected.uid === undefined
          ? true
          : type === "deleted"
            ? object.metadata.uid === expected.uid
            : object.metadata.uid !== expected.uid;
      if (seen) this.met(key);
    });
  }

  /** Call before the create, because the watch may be faster than its answer. */
  creating(owner: string, child: string): void {
    this.#set(owner, child, undefined);
  }

  /** Call before the delete. */
  deleting(owner: string, child: string, uid: string): void {
    this.#set(owner, child, uid);
  }

  /** The call failed and surely did nothing, or the child was seen by other means. */
  met(child: string): void {
    const expected = this.#byChild.get(child);
    if (expected === undefined) return;
    this.#byChild.delete(child);
    const children = this.#byOwner.get(expected.owner);
    children?.delete(child);
    if (children?.size === 0) this.#byOwner.delete(expected.owner);
  }

  /** True when the cache has shown all that was done for this owner, or it took too long. */
  satisfied(owner: string): boolean {
    return this.pending(owner).length === 0;
  }

  /** The children the cache still owes. */
  pending(owner: string): string[] {
    const oldest = this.#clock.monotonic() - this.#timeoutMs;
    const children = [...(this.#byOwner.get(owner) ?? [])];
    for (const child of children) {
      if ((this.#byChild.get(child)?.sinceMs ?? 0) < oldest) this.met(child);
    }
    return [...(this.#byOwner.get(owner) ?? [])];
  }

  /** The owner is gone. */
  forget(owner: string): void {
    for (const child of this.#byOwner.get(owner) ?? []) this.met(child);
  }

  #set(owner: string, child: string, uid: string | undefined): void {
    this.met(child);
    this.#byChild.set(child, { owner, uid, sinceMs: this.#clock.monotonic() });
    const children = this.#byOwner.get(owner) ?? new Set();
    this.#byOwner.set(owner, children.add(child));
  }
}
