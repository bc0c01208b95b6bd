import { describeError } from "../runtime/errors.ts";
import type { Logger } from "../runtime/logger.ts";
import type { Change } from "./informer.ts";
import { type KubeObject, objectKey, refOf } from "./objects.ts";

export type Indexes<P> = Record<string, (object: P) => readonly string[]>;

export interface InformerCacheOptions<T, P> {
  project: (object: T) => P;
  indexes: Indexes<P>;
  logger: Logger;
}

/** One object as the cache keeps it. */
interface Entry<P> {
  uid: string;
  version: string;
  /** Which reflector brought it. */
  scope: string;
  object: P;
}

/** An object read but not yet put in the cache; the parsed original can be collected. */
export interface Projected<P> {
  key: string;
  entry: Entry<P>;
}

/** The store behind an informer: projected objects, their indexes, and who listens. */
export class InformerCache<T extends KubeObject, P> {
  readonly #options: InformerCacheOptions<T, P>;
  readonly #entries = new Map<string, Entry<P>>();
  readonly #indexes = new Map<string, Map<string, Set<string>>>();
  readonly #listeners = new Set<(change: Change<P>) => void>();

  constructor(options: InformerCacheOptions<T, P>) {
    this.#options = options;
    for (const name of Object.keys(options.indexes)) this.#indexes.set(name, new Map());
  }

  get(key: string): P | undefined {
    return this.#entries.get(key)?.object;
  }

  list(): P[] {
    return [...this.#entries.values()].map(({ object }) => object);
  }

  byIndex(index: string, value: string): P[] {
    const values = this.#indexes.get(index);
    if (values === undefined) throw new RangeError(`there is no index "${index}"`);
    return [...(values.get(value) ?? [])].flatMap((key) => {
      const entry = this.#entries.get(key);
      return entry === undefined ? [] : [entry.object];
    });
  }

  onChange(listener: (change: Change<P>) => void): () => void {
    this.#listeners.add(listener);
    for (const [key, { object }] of this.#entries) this.#tell(listener, "added", key, object);
    return () => this.#listeners.delete(listener);
  }

  /** Undefined when the projection throws: such an object is as if it did not exist, and logged. */
  project(object: T, scope: string): Projected<P> | undefined {
    const key = objectKey(object);
    delete object.metadata.managedFields;
    try {
      const entry = {
        uid: object.metadata.uid ?? "",
        version: object.metadata.resourceVersion ?? "",
        scope,
        object: this.#options.project(object),
      };
      return { key, entry };
    } catch (error) {
      this.#options.logger.error(
        { ...refOf(key), err: describeError(error) },
        "object cannot be read",
      );
      return undefined;
    }
  }

  /** Everything that a list of this scope found; what it did not find has been deleted. */
  replace(scope: string, found: readonly Projected<P>[]): void {
    const keys = new Set(found.map(({ key }) => key));
    for (const [key, entry] of this.#entries) {
      if (entry.scope === scope && !keys.has(key)) this.delete(key);
    }
    for (const one of found) this.put(one);
  }

  put({ key, entry }: Projected<P>): void {
    const before = this.#entries.get(key);
    if (before?.version === entry.version && before.uid === entry.uid) return;
    if (before !== undefined && before.uid !== entry.uid) {
      // The old object went and a new one came by the same name while we did not look.
      this.delete(key);
      this.put({ key, entry });
      return;
    }
    this.#entries.set(key, entry);
    if (before !== undefined) this.#unindex(key, before.object);
    this.#index(key, entry.object);
    for (const listener of this.#listeners) {
      if (before === undefined) this.#tell(listener, "added", key, entry.object);
      else this.#tell(listener, "updated", key, entry.object, before.object);
    }
  }

  /** Removes the object; `last`, when given, is its final form. */
  delete(key: string, last?: P): void {
    const before = this.#entries.get(key);
    if (before === undefined) return;
    this.#entries.delete(key);
    this.#unindex(key, before.object);
    for (const listener of this.#listeners) {
      this.#tell(listener, "deleted", key, last ?? before.object);
    }
  }

  #tell(
    listener: (change: Change<P>) => void,
    type: Change<P>["type"],
    key: string,
    object: P,
    previous?: P,
  ): void {
    try {
      listener({ type, key, object, ...(previous === undefined ? {} : { previous }) });
    } catch (error) {
      // One listener's bug must not keep the others from hearing, nor the cache from following.
      this.#options.logger.error(
        { ...refOf(key), err: describeError(error) },
        "a change listener failed",
      );
    }
  }

  #index(key: string, object: P): void {
    for (const [name, value] of this.#values(key, object)) {
      const values = this.#indexes.get(name);
      const keys = values?.get(value) ?? new Set();
      values?.set(value, keys.add(key));
    }
  }

  #unindex(key: string, object: P): void {
    for (const [name, value] of this.#values(key, object)) {
      const values = this.#indexes.get(name);
      const keys = values?.get(value);
      keys?.delete(key);
      if (keys?.size === 0) values?.delete(value);
    }
  }

  #values(key: string, object: P): [string, string][] {
    return Object.entries(this.#options.indexes).flatMap(([name, index]) => {
      try {
        return index(object).map((value): [string, string] => [name, value]);
      } catch (error) {
        this.#options.logger.error(
          { ...refOf(key), index: name, err: describeError(error) },
          "index failed",
        );
        return [];
      }
    });
  }
}
