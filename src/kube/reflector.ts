/**
 * Follows one kind in one scope: list, then watch from there, for ever. Promises that at most one
 * list or one watch is open at any time, that every change reaches the cache in order, that what
 * was deleted while we did not look is noticed at the next list, and that trouble of any sort
 * (cut connection, 403, 410, 429, a server that closes at once) costs at most one call per
 * back-off. Only the monotonic clock is used, so a jump of the wall clock changes nothing.
 */
import { backoffMs } from "../runtime/backoff.ts";
import type { Clock } from "../runtime/clock.ts";
import { codeOf, describeError } from "../runtime/errors.ts";
import type { Logger } from "../runtime/logger.ts";
import type { Rng } from "../runtime/rng.ts";
import type { KubeClient, ListPage } from "./client.ts";
import { isGone, isUnavailable, isUnreachable, retryAfterOf } from "./errors.ts";
import type { InformerCache, Projected } from "./informer-cache.ts";
import { type KubeObject, objectKey, type ResourceType } from "./objects.ts";

export interface ReflectorDeps<T extends KubeObject, P> {
  client: Pick<KubeClient, "list" | "watch">;
  clock: Clock;
  rng: Pick<Rng, "next">;
  logger: Logger;
  type: ResourceType<T>;
  cache: InformerCache<T, P>;
  /** Undefined for all namespaces. */
  namespace: string | undefined;
  labelSelector: string | undefined;
  fieldSelector: string | undefined;
}

const PAGE_SIZE = 500;
/** client-go's range: the random part keeps all watches of a cluster from ending together. */
const WATCH_MIN_SECONDS = 300;
const WATCH_SPREAD_SECONDS = 300;
/** The server sends a bookmark each minute; after two and a half without any, the link is dead. */
const SILENCE_MS = 150_000;
const BACKOFF = { baseMs: 500, maxMs: 10_000 };
/** A watch that lived this long was healthy; one that did not counts as a failure. */
const HEALTHY_MS = 10_000;
/** A refusal is told in the log once it lasts: a server that starts refuses a while what it will allow. */
const TELL_MS = 10_000;
/** The server may not make us wait longer than this. */
const MAX_RETRY_AFTER_MS = 60_000;

export class Reflector<T extends KubeObject, P> {
  readonly #deps: ReflectorDeps<T, P>;
  readonly #scope: string;
  #version: string | undefined;
  #failures = 0;
  /** Since when the server refuses; undefined while it does not. */
  #refusedSince: number | undefined;
  #toldRefusal = false;
  /** True once a list has been put in the cache. */
  listed = false;
  /** What went wrong last, for `/readyz`; undefined while all is well. */
  trouble: string | undefined;

  constructor(deps: ReflectorDeps<T, P>) {
    this.#deps = deps;
    this.#scope = deps.namespace ?? "";
  }

  /** Follows until the signal aborts. Calls `onListed` after each list. Never throws. */
  async run(signal: AbortSignal, onListed: () => void): Promise<void> {
    while (!signal.aborted) {
      const start = this.#deps.clock.monotonic();
      let failure: unknown;
      try {
        if (this.#version === undefined) {
          await this.#relist(signal);
          onListed();
        }
        await this.#follow(signal);
      } catch (error) {
        failure = error;
      }
      if (signal.aborted) return;
      await this.#rest(failure, this.#deps.clock.monotonic() - start, signal);
    }
  }

  /** Decides what the end of a watch means, and waits as long as that asks for. */
  async #rest(failure: unknown, livedMs: number, signal: AbortSignal): Promise<void> {
    const { clock, rng } = this.#deps;
    if (livedMs >= HEALTHY_MS) this.#failures = 0;
    if (failure !== undefined) {
      this.trouble = describeError(failure);
      // Where the server cannot be asked, the version stays good; any other answer means list anew.
      if (!isUnavailable(failure)) this.#version = undefined;
      this.#tell(failure);
    }
    if (failure === undefined && livedMs >= HEALTHY_MS) return;
    const firstExpiry = isGone(failure) && this.#failures === 0;
    this.#failures += 1;
    if (firstExpiry) return;
    const asked = Math.min(retryAfterOf(failure) ?? 0, MAX_RETRY_AFTER_MS);
    const delay = Math.max(asked, backoffMs(this.#failures, BACKOFF, rng));
    await clock.sleep(delay, signal).catch(() => {});
  }

  /** One line for a refusal that lasts. The client tells of a server that cannot be reached. */
  #tell(failure: unknown): void {
    const { clock, logger, namespace } = this.#deps;
    const where = namespace === undefined ? {} : { namespace };
    const fields = { ...where, err: this.trouble, attempt: this.#failures + 1 };
    if (isGone(failure) || isUnreachable(failure)) {
      if (isUnreachable(failure)) this.#refusedSince = undefined;
      logger.debug(fields, "watch ended, looking again");
      return;
    }
    this.#refusedSince ??= clock.monotonic();
    if (this.#toldRefusal || clock.monotonic() - this.#refusedSince < TELL_MS) return;
    this.#toldRefusal = true;
    logger.warn({ ...fields, code: codeOf(failure) ?? "INTERNAL" }, "list or watch failed");
  }

  /** Only what a watch brings shows that both calls work. */
  #works(): void {
    const { logger, namespace } = this.#deps;
    this.trouble = undefined;
    this.#refusedSince = undefined;
    if (!this.#toldRefusal) return;
    this.#toldRefusal = false;
    logger.info(namespace === undefined ? {} : { namespace }, "list and watch work again");
  }

  async #relist(signal: AbortSignal): Promise<void> {
    const found: Projected<P>[] = [];
    let page = await this.#page(signal, undefined);
    for (;;) {
      for (const item of page.items) {
        const projected = this.#deps.cache.project(item, this.#scope);
        if (projected !== undefined) found.push(projected);
      }
      if (page.continueToken === undefined) break;
      page = await this.#page(signal, page.continueToken);
    }
    this.#deps.cache.replace(this.#scope, found);
    this.#version = page.resourceVersion;
    this.listed = true;
    this.trouble = undefined;
  }

  #page(signal: AbortSignal, continueToken: string | undefined): Promise<ListPage<T>> {
    const { client, type } = this.#deps;
    return client.list(type, {
      ...this.#where(),
      limit: PAGE_SIZE,
      ...(continueToken === undefined ? {} : { continueToken }),
      signal,
    });
  }

  async #follow(signal: AbortSignal): Promise<void> {
    const { cache, client, rng, type } = this.#deps;
    const watch = client.watch(type, {
      ...this.#where(),
      resourceVersion: this.#version ?? "",
      timeoutSeconds: Math.round(WATCH_MIN_SECONDS + WATCH_SPREAD_SECONDS * rng.next()),
      silenceMs: SILENCE_MS,
      signal,
    });
    for await (const event of watch) {
      this.#works();
      if (event.type === "BOOKMARK") {
        this.#version = event.resourceVersion;
        continue;
      }
      const projected = cache.project(event.object, this.#scope);
      const key = objectKey(event.object);
      if (event.type === "DELETED") cache.delete(key, projected?.entry.object);
      else if (projected === undefined) cache.delete(key);
      else cache.put(projected);
      this.#version = event.object.metadata.resourceVersion ?? this.#version;
    }
  }

  #where(): { namespace?: string; labelSelector?: string; fieldSelector?: string } {
    const { namespace, labelSelector, fieldSelector } = this.#deps;
    return {
      ...(namespace === undefined ? {} : { namespace }),
      ...(labelSelector === undefined ? {} : { labelSelector }),
      ...(fieldSelector === undefined ? {} : { fieldSelector }),
    };
  }
}
