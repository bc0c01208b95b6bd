import type { Logger } from "../runtime/logger.ts";
import type { Informer } from "./informer.ts";
import type { OwnerReference, ResourceType } from "./objects.ts";
import { apiVersionOf } from "./objects.ts";
import type { Outcome } from "./outcome.ts";

/** Where a watch puts the keys it wants worked on. */
export interface Enqueue {
  add(key: string): void;
  addAfter(key: string, delayMs: number): void;
}

/** Starts telling which keys need a pass; the answer stops it. Starts must not block. */
export type Watch = (enqueue: Enqueue) => () => void;

/** Wakes keys for what no informer tells of. While no controller listens, nothing is woken or kept. */
export class Waker implements Enqueue {
  #enqueue: Enqueue | undefined;

  readonly watch: Watch = (enqueue) => {
    this.#enqueue = enqueue;
    return () => {
      this.#enqueue = undefined;
    };
  };

  add(key: string): void {
    this.#enqueue?.add(key);
  }

  addAfter(key: string, delayMs: number): void {
    this.#enqueue?.addAfter(key, delayMs);
  }
}

/** What one pass gets besides its key. */
export interface PassContext {
  /** Aborts when the process stops, the lease is lost or the pass is too slow. */
  signal: AbortSignal;
  /** Has `controller`, `key` and `reconcileId` in it. */
  logger: Logger;
  reconcileId: string;
}

/** One kind, one concern. A pass is observe → plan → apply → status. */
export interface Controller {
  /** Lower case, constant: a label of metrics and logs. */
  readonly name: string;
  readonly watches: readonly Watch[];
  /** How many keys are worked on side by side; default 4. One key never is. */
  readonly concurrency?: number;
  /** How long one pass may take; default 60 s. */
  readonly passTimeoutMs?: number;
  /**
   * Makes the world match the object behind `key`, which may no longer exist. Conflict and
   * not-found may simply be thrown: they are `waiting`.
   */
  reconcile(key: string, context: PassContext): Promise<Outcome>;
}

/** Wakes for every change of the informer's objects, by their own key. */
export function watchObjects<P>(informer: Informer<P>): Watch {
  return (enqueue) => informer.onChange((change) => enqueue.add(change.key));
}

/** Wakes the keys that `keys` names for the object, and for its previous form. */
export function watchMapped<P>(
  informer: Informer<P>,
  keys: (object: P, key: string) => readonly string[],
): Watch {
  return (enqueue) =>
    informer.onChange(({ key, object, previous }) => {
      const found = new Set(keys(object, key));
      if (previous !== undefined) for (const other of keys(previous, key)) found.add(other);
      for (const one of found) enqueue.add(one);
    });
}

/** Wakes the owner (of this type, in the same namespace) of each object that changes. */
export function watchOwned<P extends { metadata: OwnedMeta }>(
  informer: Informer<P>,
  owner: ResourceType,
): Watch {
  return watchMapped(informer, (object) => ownerKeys(object.metadata, owner));
}

export interface OwnedMeta {
  namespace?: string;
  ownerReferences?: readonly OwnerReference[];
}

function ownerKeys(meta: OwnedMeta, owner: ResourceType): string[] {
  return (meta.ownerReferences ?? [])
    .filter(({ kind, apiVersion }) => kind === owner.kind && apiVersion === apiVersionOf(owner))
    .map(({ name }) =>
      owner.namespaced && meta.namespace !== undefined ? `${meta.namespace}/${name}` : name,
    );
}
