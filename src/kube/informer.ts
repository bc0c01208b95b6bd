/** A cache of one kind that follows the API server, and tells what changed. */

export interface Change<P> {
  type: "added" | "updated" | "deleted";
  /** `namespace/name` or `name`. */
  key: string;
  /** The cached form after the change; for `deleted`, the last one known. */
  object: P;
  /** For `updated`: the form before. */
  previous?: P;
}

/** What controllers read. `P` is what the informer's projection keeps of an object. */
export interface Informer<P> {
  readonly name: string;
  /** True once everything that existed at the start has been seen. Stays true. */
  readonly hasSynced: boolean;
  get(key: string): P | undefined;
  list(): P[];
  /** Objects for which the index function of this name gave `value`. Throws for an unknown index. */
  byIndex(index: string, value: string): P[];
  /** Calls back for every present object as `added`, then for each change. Returns how to stop. */
  onChange(listener: (change: Change<P>) => void): () => void;
  /** Resolves when `hasSynced`; rejects with the signal's reason. */
  synced(signal: AbortSignal): Promise<void>;
}

/** An informer that runs; `run` resolves when the signal aborts and all it started is over. */
export interface RunningInformer<P> extends Informer<P> {
  run(signal: AbortSignal): Promise<void>;
  /** Undefined when synced; else one sentence for `/readyz`. */
  readiness(): string | undefined;
}
