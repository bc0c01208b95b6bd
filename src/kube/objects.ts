/**
 * Kubernetes objects as they cross the wire: plain JSON, times as RFC 3339 strings. (The classes of
 * `@kubernetes/client-node` say `Date` where the wire says string; use their types for `spec` only.)
 */
import { AppError } from "../runtime/errors.ts";

export interface OwnerReference {
  apiVersion: string;
  kind: string;
  name: string;
  uid: string;
  controller?: boolean;
  blockOwnerDeletion?: boolean;
}

export interface ObjectMeta {
  name: string;
  generateName?: string;
  namespace?: string;
  uid?: string;
  resourceVersion?: string;
  generation?: number;
  labels?: Record<string, string>;
  annotations?: Record<string, string>;
  finalizers?: string[];
  ownerReferences?: OwnerReference[];
  creationTimestamp?: string;
  deletionTimestamp?: string;
  deletionGracePeriodSeconds?: number;
  /** Who owns which field: often the larger half of an object. Caches drop it. */
  managedFields?: unknown;
}

/** Any object. A kind is `KubeObject & { spec?: S; status?: T }` or an interface that extends this. */
export interface KubeObject {
  apiVersion: string;
  kind: string;
  metadata: ObjectMeta;
}

/** Where a kind lives in the API and what its objects look like. */
export interface ResourceType<T extends KubeObject = KubeObject> {
  /** API group; empty for the core group. */
  readonly group: string;
  readonly version: string;
  readonly kind: string;
  readonly plural: string;
  readonly namespaced: boolean;
  /** Never set: it carries the object's type from the constant to the calls that use it. */
  readonly object?: T;
}

/** Names one object of a known type; `namespace` is left out for cluster-scoped kinds. */
export interface ObjectRef {
  name: string;
  namespace?: string;
}

export function apiVersionOf(type: ResourceType): string {
  return type.group === "" ? type.version : `${type.group}/${type.version}`;
}

/** `namespace/name`, or `name` for a cluster-scoped object: the key of caches and work queues. */
export function keyOf(ref: ObjectRef): string {
  return ref.namespace === undefined ? ref.name : `${ref.namespace}/${ref.name}`;
}

export function objectKey(object: { metadata: ObjectRef }): string {
  return keyOf(object.metadata);
}

/** The inverse of `keyOf`. */
export function refOf(key: string): ObjectRef {
  const slash = key.indexOf("/");
  if (slash === -1) return { name: key };
  return { namespace: key.slice(0, slash), name: key.slice(slash + 1) };
}

/** For messages: `pod "team-a/hello"`. */
export function describeObject(type: ResourceType, ref: ObjectRef): string {
  return `${type.kind} "${keyOf(ref)}"`;
}

export function isBeingDeleted(object: KubeObject): boolean {
  return object.metadata.deletionTimestamp !== undefined;
}

/** The UID of an object that was read from the API; throws INTERNAL for one that never was. */
export function uidOf(object: KubeObject): string {
  const uid = object.metadata.uid;
  if (uid === undefined || uid === "") {
    throw new AppError("INTERNAL", `${object.kind} "${objectKey(object)}" has no UID yet`);
  }
  return uid;
}
