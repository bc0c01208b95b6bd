import { isDeepStrictEqual } from "node:util";
import type { ApplyOptions } from "../../src/kube/client.ts";
import { KubeError } from "../../src/kube/errors.ts";
import type { KubeObject } from "../../src/kube/objects.ts";
import { plainObject } from "./fake-kube-patch.ts";

/** Manager → the paths of the fields it owns. */
export type FieldOwners = Map<string, Set<string>>;

type Stored = KubeObject & Record<string, unknown>;

const IDENTITY = new Set([
  "/apiVersion",
  "/kind",
  "/metadata/name",
  "/metadata/namespace",
  "/metadata/uid",
  "/metadata/resourceVersion",
]);

/**
 * Server-side apply by fields: what the manager sends it owns, what it owned and no longer sends
 * goes unless another owns it too, and a different value of another's field is a conflict.
 */
export function applyFields(
  existing: Stored,
  owners: FieldOwners,
  sent: Stored,
  options: ApplyOptions,
): { next: Stored; owners: FieldOwners } {
  const next = structuredClone(existing);
  const result: FieldOwners = new Map([...owners].map(([name, set]) => [name, new Set(set)]));
  const fields = plainObject.leaves(sent).filter(([path]) => !IDENTITY.has(path));
  for (const [path, value] of fields) {
    const current = plainObject.at(existing, path);
    if (isEmptyObject(value) && plainObject.isPlain(current)) continue;
    const changes = !isDeepStrictEqual(current, value);
    for (const [manager, set] of result) {
      if (!changes || manager === options.fieldManager || !overlaps(set, path)) continue;
      if (options.force !== true) throw conflict(manager, path);
      for (const own of set) if (own === path || own.startsWith(`${path}/`)) set.delete(own);
    }
    plainObject.set(next, path, value);
  }
  const mine = new Set(fields.map(([path]) => path));
  for (const path of result.get(options.fieldManager) ?? []) {
    const others = [...result].some(
      ([manager, set]) => manager !== options.fieldManager && set.has(path),
    );
    const covered = [...mine].some((own) => own === path || own.startsWith(`${path}/`));
    // A status that is not sent to the status sub-resource is not given up there.
    const elsewhere = path.startsWith("/status") !== (options.subresource === "status");
    if (elsewhere) mine.add(path);
    else if (!covered && !others && !IDENTITY.has(path)) plainObject.remove(next, path);
  }
  result.set(options.fieldManager, mine);
  return { next, owners: result };
}

/** An empty object says nothing about the fields in it. */
function isEmptyObject(value: unknown): boolean {
  return plainObject.isPlain(value) && Object.keys(value).length === 0;
}

function overlaps(set: ReadonlySet<string>, path: string): boolean {
  return set.has(path) || [...set].some((own) => own.startsWith(`${path}/`));
}

function conflict(manager: string, path: string): KubeError {
  const field = path.replaceAll("/", ".");
  return new KubeError(`Apply failed with 1 conflict: conflict with "${manager}": ${field}`, {
    status: 409,
    reason: "Conflict",
  });
}
