import { aborted } from "../runtime/abort.ts";
import type { Clock } from "../runtime/clock.ts";
import type { Logger } from "../runtime/logger.ts";
import type { Rng } from "../runtime/rng.ts";
import type { KubeClient } from "./client.ts";
import type { Change, RunningInformer } from "./informer.ts";
import { type Indexes, InformerCache } from "./informer-cache.ts";
import type { KubeObject, ResourceType } from "./objects.ts";
import { Reflector } from "./reflector.ts";

export interface InformerDeps {
  client: Pick<KubeClient, "list" | "watch">;
  clock: Clock;
  rng: Pick<Rng, "next">;
  logger: Logger;
}

export interface InformerOptions<T extends KubeObject, P> {
  type: ResourceType<T>;
  /**
   * What the cache keeps of an object; called once per version, the original is dropped. Keep it
   * small (`managedFields` are gone already) and total: an object for which it throws is logged and treated as absent.
   */
  project: (object: T) => P;
  /** One list and watch each; all namespaces when left out. */
  namespaces?: readonly string[];
  labelSelector?: string;
  fieldSelector?: string;
  /** Name → values under which `byIndex` finds the object. Pure. */
  indexes?: Indexes<P>;
}

/** An informer over list and watch; nothing happens until `run`. */
export class WatchingInformer<T extends KubeObject, P> implements RunningInformer<P> {
  readonly name: string;
  readonly #cache: InformerCache<T, P>;
  readonly #reflectors: Reflector<T, P>[];
  readonly #ready = Promise.withResolvers<void>();
  #synced = false;

  constructor(deps: InformerDeps, options: InformerOptions<T, P>) {
    const { type } = options;
    this.name = type.plural;
    const logger = deps.logger.child({ component: "informer", kind: type.kind });
    const { project, indexes = {} } = options;
    const cache = new InformerCache<T, P>({ project, indexes, logger });
    this.#cache = cache;
    const { labelSelector, fieldSelector } = options;
    const scopes = type.namespaced ? (options.namespaces ?? [undefined]) : [undefined];
    this.#reflectors = scopes.map(
      (namespace) =>
        new Reflector({ ...deps, logger, type, cache, namespace, labelSelector, fieldSelector }),
    );
  }

  get hasSynced(): boolean {
    return this.#synced;
  }

  get(key: string): P | undefined {
    return this.#cache.get(key);
  }

  list(): P[] {
    return this.#cache.list();
  }

  byIndex(index: string, value: string): P[] {
    return this.#cache.byIndex(index, value);
  }

  onChange(listener: (change: Change<P>) => void): () => void {
    return this.#cache.onChange(listener);
  }

  async synced(signal: AbortSignal): Promise<void> {
    await Promise.race([this.#ready.promise, aborted(signal)]);
    if (!this.#synced) signal.throwIfAborted();
  }

  async run(signal: AbortSignal): Promise<void> {
    const onListed = () => {
      this.#synced = this.#reflectors.every(({ listed }) => listed);
      if (this.#synced) this.#ready.resolve();
    };
    await Promise.all(this.#reflectors.map((reflector) => reflector.run(signal, onListed)));
  }

  readiness(): string | undefined {
    if (this.#synced) return undefined;
    const trouble = this.#reflectors.find((one) => one.trouble !== undefined)?.trouble;
    return `${this.name} are not listed yet${trouble === undefined ? "" : `: ${trouble}`}`;
  }
}
