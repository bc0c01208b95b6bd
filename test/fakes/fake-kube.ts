/**
 * An API server in memory that keeps the contract in `test/contracts/kube-client.ts`: versions and
 * conflicts, generation, finalizers and deletion, namespaces, field managers, watches with
 * bookmarks and 410.
 *
 * With a `clock`, a deleted pod terminates as on a node: its deletionTimestamp comes first, and it
 * goes when its grace period is over.
 *
 * Simpler than the real one: any kind exists, nothing is validated or defaulted (see `admit`),
 * `dryRun` writes nothing but also checks little, field ownership counts a list as one field, pods
 * never run, and owned objects are collected only with `garbageCollection: true`.
 */
import { isDeepStrictEqual } from "node:util";
import type {
  ApplyOptions,
  CallOptions,
  DeleteOptions,
  KubeClient,
  ListOptions,
  ListPage,
  Patch,
  PatchStatusOptions,
  WatchEvent,
  WatchOptions,
  WriteOptions,
} from "../../src/kube/client.ts";
import { KubeError } from "../../src/kube/errors.ts";
import {
  apiVersionOf,
  describeObject,
  type KubeObject,
  keyOf,
  type ObjectRef,
  type ResourceType,
} from "../../src/kube/objects.ts";
import { rfc3339 } from "../../src/kube/status.ts";
import type { Clock } from "../../src/runtime/clock.ts";
import { applyFields, type FieldOwners } from "./fake-kube-apply.ts";
import { jsonPatch, mergeInto, plainObject } from "./fake-kube-patch.ts";
import { FakeWatch, matcher, type Recorded, type StoredObject } from "./fake-kube-watch.ts";

export type KubeVerb =
  | "get"
  | "list"
  | "watch"
  | "create"
  | "apply"
  | "patch"
  | "patchStatus"
  | "delete";

export interface KubeRequest {
  verb: KubeVerb;
  kind: string;
  namespace?: string;
  name?: string;
  subresource?: string;
  /** What was sent, for writes. */
  body?: unknown;
}

export interface FakeKubeOptions {
  /** For timestamps and for pods that terminate. Without it time stands still and pods go at once. */
  clock?: Pick<Clock, "now" | "timer">;
  /** Delete what has only dead owners. */
  garbageCollection?: boolean;
  /** Refuse objects in namespaces that were not created. */
  requireNamespaces?: boolean;
  /** As admission: may change the object, or throw a KubeError. Called for create and apply. */
  admit?: (type: ResourceType, object: KubeObject) => void;
}

interface Stored {
  type: ResourceType;
  object: StoredObject;
  owners: FieldOwners;
}

interface Failure {
  verb: KubeVerb | "*";
  kind: string;
  error: Error;
  left: number;
  /** The write happens, only the answer is lost. */
  afterwards: boolean;
}

export class FakeKube implements KubeClient {
  /** All calls since the start or the last `requests.length = 0`, failed ones too. */
  readonly requests: KubeRequest[] = [];
  readonly #options: FakeKubeOptions;
  readonly #stored = new Map<string, Stored>();
  readonly #history: Recorded[] = [];
  readonly #failures: Failure[] = [];
  readonly #watchers = new Set<FakeWatch>();
  #version = 1;
  #oldest = 0;
  #uid = 0;

  constructor(options: FakeKubeOptions = {}) {
    this.#options = options;
  }

  // What tests use besides the client's verbs.

  /**
   * The next `times` calls of this verb for this kind fail with `error`. With `afterwards` the
   * call is carried out first, as when the answer is lost.
   */
  fail(
    verb: KubeVerb | "*",
    kind: string,
    error: Error,
    times = 1,
    options: { afterwards?: boolean } = {},
  ): void {
    const afterwards = options.afterwards ?? false;
    this.#failures.push({ verb, kind, error, left: times, afterwards });
  }

  /** Forgets all failures that are still to come. */
  stopFailing(): void {
    this.#failures.length = 0;
  }

  /** Recorded calls of a verb, of one kind or all. */
  requestsOf(verb: KubeVerb, kind?: string): KubeRequest[] {
    return this.requests.filter((r) => r.verb === verb && (kind === undefined || r.kind === kind));
  }

  /** All objects of a kind, without recording a call. */
  objects<T extends KubeObject>(type: ResourceType<T>): T[] {
    return [...this.#stored.values()]
      .filter((entry) => entry.type.kind === type.kind && entry.type.group === type.group)
      .map(({ object }) => copy(object) as KubeObject as T);
  }

  /** The object, or undefined, without recording a call. */
  peek<T extends KubeObject>(type: ResourceType<T>, ref: ObjectRef): T | undefined {
    const stored = this.#stored.get(storeKey(type, ref));
    return stored === undefined ? undefined : (copy(stored.object) as KubeObject as T);
  }

  /** Puts an object there as someone else would: no call is recorded, no failure applies. */
  seed<T extends KubeObject>(type: ResourceType<T>, object: T): T {
    return this.#create(type, object, "seed", { keepStatus: true }) as KubeObject as T;
  }

  /** Changes an object in place as its user, kubelet or another controller would. */
  edit<T extends KubeObject>(
    type: ResourceType<T>,
    ref: ObjectRef,
    change: (object: T) => void,
  ): T {
    const stored = this.#find(type, ref);
    const next = copy(stored.object);
    change(next as KubeObject as T);
    return copy(this.#replace(stored, next, "edit")) as KubeObject as T;
  }

  /** Removes an object at once, whatever its finalizers. */
  vanish(type: ResourceType, ref: ObjectRef): void {
    this.#remove(this.#find(type, ref));
  }

  /** Open watches of a kind. */
  watchCount(kind?: string): number {
    return [...this.#watchers].filter((w) => kind === undefined || w.type.kind === kind).length;
  }

  /** Ends every open watch of the kind, as the server does, or breaks it with an error. */
  closeWatches(kind: string, error?: Error): void {
    for (const watcher of this.#watchers) if (watcher.type.kind === kind) watcher.end(error);
  }

  /** Sends every open watch of the kind a bookmark at the newest version. */
  bookmark(kind: string): void {
    for (const watcher of this.#watchers) {
      if (watcher.type.kind === kind) {
        watcher.push({ type: "BOOKMARK", resourceVersion: `${this.#version}` });
      }
    }
  }

  /** Forgets history: watches from an older version and continued lists get 410. */
  compact(): void {
    this.#oldest = this.#version;
    this.#history.length = 0;
  }

  // KubeClient.

  get<T extends KubeObject>(type: ResourceType<T>, ref: ObjectRef, options?: CallOptions) {
    return this.#call("get", type, ref, options, undefined, () => {
      return copy(this.#find(type, ref).object) as KubeObject as T;
    });
  }

  list<T extends KubeObject>(type: ResourceType<T>, options: ListOptions = {}) {
    const where = options.namespace === undefined ? {} : { namespace: options.namespace };
    return this.#call("list", type, where, options, undefined, () => this.#page(type, options));
  }

  async *watch<T extends KubeObject>(
    type: ResourceType<T>,
    options: WatchOptions,
  ): AsyncGenerator<WatchEvent<T>> {
    const where = options.namespace === undefined ? {} : { namespace: options.namespace };
    const since = Number(options.resourceVersion);
    const watcher = await this.#call("watch", type, where, options, undefined, () => {
      if (since < this.#oldest) throw gone(`too old resource version: ${since}`);
      const created = new FakeWatch(type, options);
      for (const record of this.#history) if (record.version > since) created.offer(record);
      this.#watchers.add(created);
      return created;
    });
    try {
      yield* watcher.events() as AsyncGenerator<WatchEvent<T>>;
    } finally {
      this.#watchers.delete(watcher);
    }
  }

  create<T extends KubeObject>(type: ResourceType<T>, object: T, options: WriteOptions = {}) {
    return this.#call("create", type, object.metadata, options, object, () => {
      if (isReview(type)) return copy(object);
      if (options.dryRun === true) return copy(object);
      return this.#create(type, object, "create") as KubeObject as T;
    });
  }

  apply<T extends KubeObject>(type: ResourceType<T>, object: T, options: ApplyOptions) {
    return this.#call("apply", type, object.metadata, options, object, () =>
      this.#apply(type, object, options),
    );
  }

  patch<T extends KubeObject>(
    type: ResourceType<T>,
    ref: ObjectRef,
    patch: Patch,
    options: WriteOptions = {},
  ) {
    return this.#call("patch", type, ref, options, patch, () => {
      const stored = this.#find(type, ref);
      const next = patched(stored.object, patch);
      if (options.subresource === "status") {
        const { status } = next;
        return copy(this.#setStatus(stored, status)) as KubeObject as T;
      }
      this.#checkVersion(stored, next.metadata.resourceVersion);
      if (hasStatusResource(stored.object)) next["status"] = stored.object["status"];
      return copy(this.#replace(stored, next, "patch")) as KubeObject as T;
    });
  }

  patchStatus<T extends KubeObject>(
    type: ResourceType<T>,
    ref: ObjectRef,
    status: Record<string, unknown>,
    options: PatchStatusOptions = {},
  ) {
    return this.#call("patchStatus", type, ref, options, status, () => {
      const stored = this.#find(type, ref);
      this.#checkVersion(stored, options.resourceVersion);
      const next = mergeInto(stored.object["status"], status);
      return copy(this.#setStatus(stored, next)) as KubeObject as T;
    });
  }

  delete(type: ResourceType, ref: ObjectRef, options: DeleteOptions = {}): Promise<void> {
    return this.#call("delete", type, ref, options, options, () => {
      const stored = this.#find(type, ref);
      const { metadata } = stored.object;
      if (options.uid !== undefined && options.uid !== metadata.uid) {
        throw conflict(`${describeObject(type, ref)}: the UID in the precondition differs`);
      }
      this.#checkVersion(stored, options.resourceVersion);
      this.#delete(stored, options.gracePeriodSeconds);
    });
  }

  /** At once when nothing holds it; else marked first. */
  #delete(stored: Stored, asked?: number): void {
    const { metadata } = stored.object;
    const grace = asked ?? this.#graceOf(stored);
    if ((metadata.finalizers ?? []).length === 0 && grace === 0) {
      this.#remove(stored);
      return;
    }
    if (metadata.deletionTimestamp !== undefined) return;
    const next = copy(stored.object);
    next.metadata.deletionTimestamp = this.#timestamp(grace * 1000);
    next.metadata.deletionGracePeriodSeconds = grace;
    next.metadata.generation = (next.metadata.generation ?? 0) + 1;
    this.#store(stored, next);
    if (grace > 0) this.#options.clock?.timer(grace * 1000, () => this.#terminated(stored));
  }

  /** Only pods have processes to end. */
  #graceOf({ type, object }: Stored): number {
    if (type.kind !== "Pod" || this.#options.clock === undefined) return 0;
    const seconds = plainObject.at(object, "/spec/terminationGracePeriodSeconds");
    return typeof seconds === "number" ? seconds : 30;
  }

  #terminated(stored: Stored): void {
    const current = this.#stored.get(storeKey(stored.type, stored.object.metadata));
    if (current !== stored) return;
    if ((stored.object.metadata.finalizers ?? []).length === 0) this.#remove(stored);
  }

  async #call<R>(
    verb: KubeVerb,
    type: ResourceType,
    where: Partial<ObjectRef>,
    options: { signal?: AbortSignal; subresource?: string } | undefined,
    body: unknown,
    work: () => R,
  ): Promise<R> {
    options?.signal?.throwIfAborted();
    this.requests.push({
      verb,
      kind: type.kind,
      ...(where.namespace === undefined ? {} : { namespace: where.namespace }),
      ...(where.name === undefined ? {} : { name: where.name }),
      ...(options?.subresource === undefined ? {} : { subresource: options.subresource }),
      ...(body === undefined ? {} : { body: structuredClone(body) }),
    });
    // As over a network: nothing has happened yet when the call returns its promise.
    await Promise.resolve();
    const failure = this.#failures.find(
      (one) =>
        one.left > 0 && (one.verb === "*" || one.verb === verb) && matchesKind(one.kind, type),
    );
    if (failure !== undefined) failure.left -= 1;
    if (failure !== undefined && !failure.afterwards) throw failure.error;
    const result = work();
    if (failure !== undefined) throw failure.error;
    return result;
  }

  #create(
    type: ResourceType,
    given: KubeObject,
    manager: string,
    options = { keepStatus: false },
  ): StoredObject {
    const object = wire(type, given);
    const { metadata } = object;
    if (metadata.generateName !== undefined && !metadata.name) {
      metadata.name = `${metadata.generateName}${(this.#uid + 1).toString(36).padStart(5, "0")}`;
    }
    if (this.#stored.has(storeKey(type, metadata))) {
      throw new KubeError(`${describeObject(type, metadata)} already exists`, {
        status: 409,
        reason: "AlreadyExists",
      });
    }
    this.#checkNamespace(type, metadata);
    this.#options.admit?.(type, object);
    this.#uid += 1;
    metadata.uid = `00000000-0000-4000-8000-${this.#uid.toString().padStart(12, "0")}`;
    metadata.creationTimestamp = this.#timestamp();
    metadata.generation = 1;
    delete metadata.deletionTimestamp;
    if (isStatusReset(type) && !options.keepStatus) delete object["status"];
    const stored: Stored = { type, object, owners: new Map() };
    stored.owners.set(manager, fieldsOf(object));
    this.#version += 1;
    metadata.resourceVersion = `${this.#version}`;
    this.#stored.set(storeKey(type, metadata), stored);
    this.#record("ADDED", stored, undefined);
    return copy(object);
  }

  #apply<T extends KubeObject>(type: ResourceType<T>, object: T, options: ApplyOptions): T {
    const existing = this.#stored.get(storeKey(type, object.metadata));
    if (existing === undefined) {
      if (object.metadata.uid !== undefined) {
        throw conflict(`${describeObject(type, object.metadata)} with this UID does not exist`);
      }
      if (options.subresource !== undefined) throw notFound(type, object.metadata);
      if (options.dryRun === true) return copy(object);
      return this.#create(type, object, options.fieldManager) as KubeObject as T;
    }
    const { uid, resourceVersion } = object.metadata;
    if (uid !== undefined && uid !== existing.object.metadata.uid) {
      throw new KubeError(
        `${describeObject(type, object.metadata)} is invalid: metadata.uid: field is immutable`,
        { status: 422, reason: "Invalid" },
      );
    }
    this.#checkVersion(existing, resourceVersion);
    const sent = wire(type, object);
    if (isStatusReset(type) && options.subresource !== "status") delete sent["status"];
    this.#options.admit?.(type, sent);
    const { next, owners } = applyFields(existing.object, existing.owners, sent, options);
    if (options.dryRun === true) return next as KubeObject as T;
    existing.owners = owners;
    if (options.subresource === "status") {
      return copy(this.#setStatus(existing, next["status"])) as KubeObject as T;
    }
    return copy(this.#replace(existing, next, undefined)) as KubeObject as T;
  }

  /** Writes all but what the server owns; bumps generation, and removes when nothing holds it. */
  #replace(stored: Stored, next: StoredObject, manager: string | undefined): StoredObject {
    const before = stored.object;
    const { uid, creationTimestamp, generation, deletionTimestamp, resourceVersion } =
      before.metadata;
    next.apiVersion = before.apiVersion;
    next.kind = before.kind;
    Object.assign(next.metadata, { uid, creationTimestamp, generation, resourceVersion });
    next.metadata.name = before.metadata.name;
    if (deletionTimestamp === undefined) delete next.metadata.deletionTimestamp;
    else {
      next.metadata.deletionTimestamp = deletionTimestamp;
      const held = new Set(before.metadata.finalizers ?? []);
      const added = (next.metadata.finalizers ?? []).filter((one) => !held.has(one));
      if (added.length > 0) {
        throw new KubeError(
          `${describeObject(stored.type, before.metadata)} is invalid: metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers ${JSON.stringify(added)}`,
          { status: 422, reason: "Invalid" },
        );
      }
    }
    if (isDeepStrictEqual(copy(next), before)) return before;
    if (!isDeepStrictEqual(specOf(next), specOf(before))) {
      next.metadata.generation = (generation ?? 0) + 1;
    }
    if (manager !== undefined) stored.owners.set(manager, fieldsOf(next));
    this.#store(stored, next);
    if (deletionTimestamp !== undefined && (next.metadata.finalizers ?? []).length === 0) {
      this.#remove(stored);
    }
    return stored.object;
  }

  #setStatus(stored: Stored, status: unknown): StoredObject {
    const next = copy({ ...stored.object, status });
    if (!isDeepStrictEqual(next, stored.object)) this.#store(stored, next);
    return stored.object;
  }

  #store(stored: Stored, next: StoredObject): void {
    const previous = stored.object;
    this.#version += 1;
    stored.object = copy(next);
    stored.object.metadata.resourceVersion = `${this.#version}`;
    this.#record("MODIFIED", stored, previous);
  }

  #remove(stored: Stored): void {
    const { metadata } = stored.object;
    this.#stored.delete(storeKey(stored.type, metadata));
    this.#version += 1;
    metadata.resourceVersion = `${this.#version}`;
    this.#record("DELETED", stored, stored.object);
    if (this.#options.garbageCollection === true) this.#collect();
  }

  #collect(): void {
    const alive = new Set([...this.#stored.values()].map(({ object }) => object.metadata.uid));
    const orphan = [...this.#stored.values()].find(({ object }) => {
      const owners = object.metadata.ownerReferences ?? [];
      const deleted = object.metadata.deletionTimestamp !== undefined;
      return owners.length > 0 && !deleted && owners.every(({ uid }) => !alive.has(uid));
    });
    if (orphan === undefined) return;
    this.#delete(orphan);
    this.#collect();
  }

  #record(type: Recorded["type"], stored: Stored, previous: StoredObject | undefined): void {
    const kind = `${stored.type.group}/${stored.type.kind}`;
    const record: Recorded = {
      version: this.#version,
      type,
      kind,
      object: copy(stored.object),
      previous,
    };
    this.#history.push(record);
    for (const watcher of this.#watchers) watcher.offer(record);
  }

  #page<T extends KubeObject>(type: ResourceType<T>, options: ListOptions): ListPage<T> {
    const [version, after] = (options.continueToken ?? `${this.#version}|`).split("|");
    if (options.continueToken !== undefined && Number(version) < this.#oldest) {
      throw gone("The provided continue parameter is too old");
    }
    const matches = matcher(type, options);
    const found = [...this.#stored.values()]
      .filter((stored) => matches(stored.object, `${stored.type.group}/${stored.type.kind}`))
      .map(({ object }) => object)
      .toSorted((a, b) => (keyOf(a.metadata) < keyOf(b.metadata) ? -1 : 1))
      .filter(({ metadata }) => keyOf(metadata) > (after ?? ""));
    const items = found.slice(0, options.limit ?? found.length);
    const last = items.at(-1);
    return {
      items: items.map((item) => copy(item) as KubeObject as T),
      resourceVersion: version ?? "",
      ...(last === undefined || items.length === found.length
        ? {}
        : { continueToken: `${version}|${keyOf(last.metadata)}` }),
    };
  }

  #find(type: ResourceType, ref: ObjectRef): Stored {
    const stored = this.#stored.get(storeKey(type, ref));
    if (stored === undefined) throw notFound(type, ref);
    return stored;
  }

  #checkVersion(stored: Stored, version: string | undefined): void {
    if (version === undefined || version === stored.object.metadata.resourceVersion) return;
    throw conflict(
      `${describeObject(stored.type, stored.object.metadata)}: the object has been modified; please apply your changes to the latest version and try again`,
    );
  }

  #checkNamespace(type: ResourceType, { namespace }: { namespace?: string }): void {
    if (!type.namespaced) return;
    if (namespace === undefined) throw new Error(`${type.kind} needs a namespace`);
    const ref = { group: "", kind: "Namespace" };
    const found = this.#stored.get(`${ref.group}/${ref.kind}/${namespace}`);
    if (found === undefined) {
      if (this.#options.requireNamespaces === true) {
        throw new KubeError(`namespaces "${namespace}" not found`, {
          status: 404,
          reason: "NotFound",
        });
      }
      return;
    }
    if (found.object.metadata.deletionTimestamp !== undefined) {
      throw new KubeError(
        `unable to create new content in namespace ${namespace} because it is being terminated`,
        { status: 403, reason: "Forbidden" },
      );
    }
  }

  #timestamp(afterMs = 0): string {
    return rfc3339((this.#options.clock?.now() ?? 1_700_000_000_000) + afterMs);
  }
}

function storeKey(type: ResourceType, ref: ObjectRef): string {
  return `${type.group}/${type.kind}/${keyOf(type.namespaced ? ref : { name: ref.name })}`;
}

function matchesKind(wanted: string, type: ResourceType): boolean {
  return wanted === "*" || wanted === type.kind;
}

function wire(type: ResourceType, object: KubeObject): StoredObject {
  return { ...(copy(object) as StoredObject), apiVersion: apiVersionOf(type), kind: type.kind };
}

function copy<T>(value: T): T {
  return JSON.parse(JSON.stringify(value)) as T;
}

/** All that counts for the generation. */
function specOf(object: StoredObject): unknown {
  const { metadata: _metadata, status: _status, ...rest } = object;
  return copy(rest);
}

function fieldsOf(object: StoredObject): Set<string> {
  return new Set(plainObject.leaves(object).map(([path]) => path));
}

function patched(object: StoredObject, patch: Patch): StoredObject {
  const base = copy(object);
  return (
    patch.kind === "merge" ? mergeInto(base, patch.body) : jsonPatch(base, patch.body)
  ) as StoredObject;
}

/** Kinds whose status is written through the sub-resource only: all but a few. */
function isStatusReset(type: ResourceType): boolean {
  return type.kind !== "Event";
}

function hasStatusResource(object: StoredObject): boolean {
  return object.kind !== "Event";
}

function isReview(type: ResourceType): boolean {
  return type.kind.endsWith("Review");
}

function notFound(type: ResourceType, ref: ObjectRef): KubeError {
  return new KubeError(`${describeObject(type, ref)} not found`, {
    status: 404,
    reason: "NotFound",
  });
}

function conflict(message: string): KubeError {
  return new KubeError(message, { status: 409, reason: "Conflict" });
}

function gone(message: string): KubeError {
  return new KubeError(message, { status: 410, reason: "Expired" });
}
