import { AppError } from "../runtime/errors.ts";
import type { ListOptions, WatchOptions } from "./client.ts";
import { describeObject, type ObjectRef, type ResourceType } from "./objects.ts";

/** `/apis/apps/v1/namespaces/team-a/deployments`; without a namespace, the path across namespaces. */
export function collectionPath(type: ResourceType, namespace: string | undefined): string {
  const root = type.group === "" ? `/api/${type.version}` : `/apis/${type.group}/${type.version}`;
  if (!type.namespaced || namespace === undefined) return `${root}/${type.plural}`;
  return `${root}/namespaces/${encodeURIComponent(namespace)}/${type.plural}`;
}

/** The path of one object; throws INPUT_INVALID where the kind needs a namespace and none is given. */
export function objectPath(type: ResourceType, ref: ObjectRef, subresource?: string): string {
  requireNamespace(type, ref);
  if (ref.name === "") throw new AppError("INPUT_INVALID", `a ${type.kind} needs a name`);
  const path = `${collectionPath(type, ref.namespace)}/${encodeURIComponent(ref.name)}`;
  return subresource === undefined ? path : `${path}/${subresource}`;
}

/** Where an object is created; a sub-resource (`eviction`) is created below its object. */
export function creationPath(type: ResourceType, ref: ObjectRef, subresource?: string): string {
  if (subresource !== undefined) return objectPath(type, ref, subresource);
  requireNamespace(type, ref);
  return collectionPath(type, ref.namespace);
}

export function listQuery(options: ListOptions): Record<string, string | undefined> {
  return {
    labelSelector: options.labelSelector,
    fieldSelector: options.fieldSelector,
    limit: options.limit?.toString(),
    continue: options.continueToken,
  };
}

export function watchQuery(options: WatchOptions): Record<string, string | undefined> {
  return {
    watch: "true",
    allowWatchBookmarks: "true",
    labelSelector: options.labelSelector,
    fieldSelector: options.fieldSelector,
    resourceVersion: options.resourceVersion,
    timeoutSeconds: options.timeoutSeconds.toString(),
  };
}

/** `path?a=b`, leaving out what is undefined. */
export function withQuery(path: string, query: Record<string, string | undefined>): string {
  const present = Object.entries(query).filter(
    (entry): entry is [string, string] => entry[1] !== undefined,
  );
  return present.length === 0 ? path : `${path}?${new URLSearchParams(present).toString()}`;
}

function requireNamespace(type: ResourceType, ref: ObjectRef): void {
  if (type.namespaced && ref.namespace === undefined) {
    throw new AppError("INPUT_INVALID", `${describeObject(type, ref)} needs a namespace`);
  }
}
