/**
 * Kubernetes Events for people: a hint that expires after about an hour, never a record. Repeats of
 * one fact become a series; each object has a budget; a failure to write is logged and forgotten,
 * so recording never fails or delays a pass.
 */
import { backoffMs } from "../runtime/backoff.ts";
import type { Clock } from "../runtime/clock.ts";
import { describeError } from "../runtime/errors.ts";
import type { Logger } from "../runtime/logger.ts";
import type { Rng } from "../runtime/rng.ts";
import type { KubeClient } from "./client.ts";
import { isNotFound, isUnavailable, isUnreachable } from "./errors.ts";
import { apiVersionOf, type KubeObject, type ResourceType } from "./objects.ts";
import { events, type KubeEvent, type ObjectReference } from "./resources.ts";
import { rfc3339Micro } from "./status.ts";
import { TokenBucket } from "./token-bucket.ts";

export interface RecordedEvent {
  /** `Warning` only for what someone should look at. */
  type: "Normal" | "Warning";
  /** PascalCase, specific, the same as the condition's reason. */
  reason: string;
  /** What was being done, PascalCase: `Provision`. */
  action: string;
  /** For people; cut at 1 KiB. */
  note: string;
  related?: ObjectReference;
}

/** What a controller needs of the recorder. */
export interface EventSink {
  record(type: ResourceType, object: Pick<KubeObject, "metadata">, event: RecordedEvent): void;
}

export interface EventRecorderDeps {
  client: Pick<KubeClient, "create" | "patch">;
  clock: Clock;
  rng: Rng;
  logger: Logger;
  /** Domain-like name of the writer: `drover.dev/operator`. */
  reportingController: string;
  /** Which replica: the pod's name. */
  reportingInstance: string;
}

/** Repeats within this time extend the series; the API server's own recorders use the same. */
const SERIES_GAP_MS = 6 * 60_000;
/** Per object: a burst that no healthy object needs, then one each five minutes (as client-go). */
const OBJECT_BUDGET = { burst: 25, perSecond: 1 / 300 };
const MAX_REMEMBERED = 4096;
const MAX_WAITING = 1000;
const ATTEMPTS = 3;

interface Series {
  name: string;
  namespace: string;
  count: number;
  lastMs: number;
}

export class EventRecorder implements EventSink {
  readonly #deps: EventRecorderDeps;
  readonly #series = new Map<string, Series>();
  readonly #budgets = new Map<string, TokenBucket>();
  readonly #stop = new AbortController();
  #tail: Promise<void> = Promise.resolve();
  #waiting = 0;

  constructor(deps: EventRecorderDeps) {
    this.#deps = deps;
  }

  record(type: ResourceType, object: Pick<KubeObject, "metadata">, event: RecordedEvent): void {
    const regarding = referenceTo(type, object);
    if (this.#stop.signal.aborted || !this.#affordable(regarding)) return;
    if (this.#waiting >= MAX_WAITING) return;
    this.#waiting += 1;
    this.#tail = this.#tail.then(async () => {
      this.#waiting -= 1;
      await this.#write(regarding, event);
    });
  }

  /** Resolves when all that was recorded so far is written or given up. */
  flush(): Promise<void> {
    return this.#tail;
  }

  /** Gives up what is not written yet. */
  async close(): Promise<void> {
    this.#stop.abort();
    await this.#tail;
  }

  #affordable(regarding: ObjectReference): boolean {
    const key = regarding.uid ?? `${regarding.kind}/${regarding.namespace}/${regarding.name}`;
    const budget = this.#budgets.get(key) ?? new TokenBucket(this.#deps.clock, OBJECT_BUDGET);
    remember(this.#budgets, key, budget);
    return budget.take();
  }

  async #write(regarding: ObjectReference, event: RecordedEvent): Promise<void> {
    for (let attempt = 1; !this.#stop.signal.aborted; attempt += 1) {
      try {
        await this.#writeOnce(regarding, event);
        return;
      } catch (error) {
        if (!isUnavailable(error) || attempt === ATTEMPTS) {
          const { kind, namespace, name } = regarding;
          const fields = { kind, namespace, name, reason: event.reason, err: describeError(error) };
          // The client tells of an API server that cannot be reached.
          const level = isUnreachable(error) ? "debug" : "warn";
          this.#deps.logger[level](fields, "event not recorded");
          return;
        }
        const delay = backoffMs(attempt, { baseMs: 500, maxMs: 5000 }, this.#deps.rng);
        await this.#deps.clock.sleep(delay, this.#stop.signal).catch(() => {});
      }
    }
  }

  async #writeOnce(regarding: ObjectReference, event: RecordedEvent): Promise<void> {
    const { client, clock } = this.#deps;
    const key = JSON.stringify([regarding, event]);
    const known = this.#series.get(key);
    const now = clock.now();
    if (known !== undefined && clock.monotonic() - known.lastMs < SERIES_GAP_MS) {
      const count = known.count + 1;
      const body = { series: { count, lastObservedTime: rfc3339Micro(now) } };
      try {
        const options = { signal: this.#stop.signal };
        await client.patch(events, known, { kind: "merge", body }, options);
        remember(this.#series, key, { ...known, count, lastMs: clock.monotonic() });
        return;
      } catch (error) {
        // The first event of the series has expired: start a new one.
        if (!isNotFound(error)) throw error;
      }
    }
    const created = this.#build(regarding, event, now);
    await client.create(events, created, { signal: this.#stop.signal });
    const { name, namespace = "default" } = created.metadata;
    remember(this.#series, key, { name, namespace, count: 1, lastMs: clock.monotonic() });
  }

  #build(regarding: ObjectReference, event: RecordedEvent, nowMs: number): KubeEvent {
    const unique = this.#deps.rng.id("").slice(-12);
    return {
      apiVersion: apiVersionOf(events),
      kind: events.kind,
      metadata: {
        name: `${(regarding.name ?? "").slice(0, 230)}.${unique}`,
        namespace: regarding.namespace ?? "default",
      },
      eventTime: rfc3339Micro(nowMs),
      type: event.type,
      reason: event.reason,
      action: event.action,
      note: cut(event.note, 1000),
      reportingController: this.#deps.reportingController,
      reportingInstance: this.#deps.reportingInstance.slice(0, 128),
      regarding,
      ...(event.related === undefined ? {} : { related: event.related }),
    };
  }
}

function referenceTo(type: ResourceType, object: Pick<KubeObject, "metadata">): ObjectReference {
  const { name, namespace, uid } = object.metadata;
  return {
    apiVersion: apiVersionOf(type),
    kind: type.kind,
    name,
    ...(namespace === undefined ? {} : { namespace }),
    ...(uid === undefined ? {} : { uid }),
  };
}

/** At most this many bytes of UTF-8, marked when something is missing. */
function cut(text: string, maxBytes: number): string {
  if (Buffer.byteLength(text) <= maxBytes) return text;
  let kept = text.slice(0, maxBytes - 3);
  while (Buffer.byteLength(kept) > maxBytes - 3) kept = kept.slice(0, -1);
  return `${kept}…`;
}

/** Puts the newest entry last and forgets the oldest beyond the limit. */
function remember<V>(map: Map<string, V>, key: string, value: V): void {
  map.delete(key);
  map.set(key, value);
  if (map.size > MAX_REMEMBERED) {
    const oldest = map.keys().next();
    if (oldest.done !== true) map.delete(oldest.value);
  }
}
