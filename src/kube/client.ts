/**
 * The Kubernetes API as this project uses it. Two implementations keep the contract in
 * `test/contracts/kube-client.ts`: the live client and `FakeKube`.
 *
 * Every call throws `KubeError` (see errors.ts for the guards), has a deadline, and honours
 * `signal`. Objects given and returned are never shared with the implementation.
 */
import type { KubeObject, ObjectRef, ResourceType } from "./objects.ts";

export interface CallOptions {
  signal?: AbortSignal;
  /** How long one try may take; default 30 s. */
  timeoutMs?: number;
}

export interface ListOptions extends CallOptions {
  /** All namespaces when left out. */
  namespace?: string;
  labelSelector?: string;
  fieldSelector?: string;
  /** Largest number of objects in one page; the server decides when left out. */
  limit?: number;
  /** From the previous page. Throws 410 (`isGone`) when it has expired. */
  continueToken?: string;
}

export interface ListPage<T> {
  items: T[];
  resourceVersion: string;
  /** Present when there are more pages. */
  continueToken?: string;
}

export interface WatchOptions {
  namespace?: string;
  labelSelector?: string;
  fieldSelector?: string;
  /** Events after this version. */
  resourceVersion: string;
  /** The server ends the watch after this time. */
  timeoutSeconds: number;
  /** The watch fails with reason `Timeout` when no byte arrives for this long. */
  silenceMs: number;
  signal: AbortSignal;
}

export type WatchEvent<T> =
  | { type: "ADDED" | "MODIFIED" | "DELETED"; object: T }
  | { type: "BOOKMARK"; resourceVersion: string };

export interface WriteOptions extends CallOptions {
  /** `status`, `scale`, `eviction` … */
  subresource?: string;
  dryRun?: boolean;
}

export interface ApplyOptions extends WriteOptions {
  fieldManager: string;
  /** Take over fields that another manager owns; otherwise that is a conflict. */
  force?: boolean;
}

export type Patch =
  | { kind: "merge"; body: Record<string, unknown> }
  | { kind: "json"; body: readonly JsonPatchOperation[] };

export interface JsonPatchOperation {
  op: "add" | "remove" | "replace" | "test";
  /** RFC 6901 pointer. */
  path: string;
  value?: unknown;
}

export interface PatchStatusOptions extends CallOptions {
  /** Conflict unless the object still has this version. */
  resourceVersion?: string;
}

export interface DeleteOptions extends CallOptions {
  /** Conflict when the object by this name is another one. */
  uid?: string;
  resourceVersion?: string;
  propagation?: "Background" | "Foreground" | "Orphan";
  gracePeriodSeconds?: number;
}

export interface KubeClient {
  /** Throws not-found. */
  get<T extends KubeObject>(
    type: ResourceType<T>,
    ref: ObjectRef,
    options?: CallOptions,
  ): Promise<T>;

  /** One page. Items carry `apiVersion` and `kind`, which the wire leaves out. */
  list<T extends KubeObject>(type: ResourceType<T>, options?: ListOptions): Promise<ListPage<T>>;

  /**
   * Events in order; bookmarks are asked for. Iteration ends when the server ends the watch and
   * throws when the connection breaks or the server reports an error (410: `isGone`). Leaving the
   * loop closes the watch.
   */
  watch<T extends KubeObject>(
    type: ResourceType<T>,
    options: WatchOptions,
  ): AsyncIterable<WatchEvent<T>>;

  /** Throws already-exists. Also for reviews (TokenReview …), whose answer is in `status`. */
  create<T extends KubeObject>(
    type: ResourceType<T>,
    object: T,
    options?: WriteOptions,
  ): Promise<T>;

  /** Server-side apply: creates or updates; fields we no longer send are given up. */
  apply<T extends KubeObject>(type: ResourceType<T>, object: T, options: ApplyOptions): Promise<T>;

  /** A merge patch takes `metadata.resourceVersion` in its body as a precondition. */
  patch<T extends KubeObject>(
    type: ResourceType<T>,
    ref: ObjectRef,
    patch: Patch,
    options?: WriteOptions,
  ): Promise<T>;

  /** JSON merge patch of `status` through the status sub-resource. */
  patchStatus<T extends KubeObject>(
    type: ResourceType<T>,
    ref: ObjectRef,
    status: Record<string, unknown>,
    options?: PatchStatusOptions,
  ): Promise<T>;

  /** Throws not-found. The object may stay for as long as it has finalizers. */
  delete(type: ResourceType, ref: ObjectRef, options?: DeleteOptions): Promise<void>;
}
