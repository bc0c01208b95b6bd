import type { JsonPatchOperation } from "../../src/kube/client.ts";
import { KubeError } from "../../src/kube/errors.ts";

type Plain = Record<string, unknown>;

function isPlain(value: unknown): value is Plain {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** Every value that is no object (lists count as one value), with its path as a JSON pointer. */
function leaves(value: unknown, path = ""): [string, unknown][] {
  if (!isPlain(value) || (Object.keys(value).length === 0 && path !== "")) return [[path, value]];
  return Object.entries(value).flatMap(([key, inner]) => leaves(inner, `${path}/${escape(key)}`));
}

function at(value: unknown, path: string): unknown {
  let current = value;
  for (const key of segments(path)) {
    if (!isPlain(current)) return undefined;
    current = current[key];
  }
  return current;
}

function set(value: Plain, path: string, leaf: unknown): void {
  const keys = segments(path);
  const last = keys.pop() ?? "";
  let current = value;
  for (const key of keys) {
    const next = current[key];
    if (isPlain(next)) current = next;
    else current = current[key] = {} as Plain;
  }
  current[last] = leaf;
}

/** Removes a leaf, and the objects it leaves empty. */
function remove(value: Plain, path: string): void {
  const keys = segments(path);
  const last = keys.pop() ?? "";
  const parent = at(value, keys.map((key) => `/${escape(key)}`).join(""));
  if (!isPlain(parent)) return;
  delete parent[last];
  if (Object.keys(parent).length === 0 && keys.length > 0) {
    remove(value, keys.map((key) => `/${escape(key)}`).join(""));
  }
}

export const plainObject = { isPlain, leaves, at, set, remove };

/** RFC 7396. */
export function mergeInto(target: unknown, patch: unknown): unknown {
  if (!isPlain(patch)) return patch;
  const result: Plain = isPlain(target) ? { ...target } : {};
  for (const [key, value] of Object.entries(patch)) {
    if (value === undefined) continue;
    if (value === null) delete result[key];
    else result[key] = mergeInto(result[key], value);
  }
  return result;
}

/** RFC 6902, of which the port has add, remove, replace and test. */
export function jsonPatch(target: unknown, operations: readonly JsonPatchOperation[]): unknown {
  for (const operation of operations) applyOperation(target, operation);
  return target;
}

function applyOperation(target: unknown, { op, path, value }: JsonPatchOperation): void {
  const keys = segments(path);
  const last = keys.pop() ?? "";
  let parent = target;
  for (const key of keys) parent = child(parent, key, path);
  if (op === "test") {
    if (JSON.stringify(child(parent, last, path)) !== JSON.stringify(value)) refuse(path, "test");
    return;
  }
  if (Array.isArray(parent)) {
    const index = last === "-" ? parent.length : Number(last);
    if (op !== "add" && index >= parent.length) refuse(path, op);
    if (op === "add") parent.splice(index, 0, value);
    else if (op === "remove") parent.splice(index, 1);
    else parent[index] = value;
  } else if (isPlain(parent)) {
    if (op !== "add" && !(last in parent)) refuse(path, op);
    if (op === "remove") delete parent[last];
    else parent[last] = value;
  } else {
    refuse(path, op);
  }
}

function child(parent: unknown, key: string, path: string): unknown {
  if (Array.isArray(parent)) return parent[Number(key)];
  if (isPlain(parent) && key in parent) return parent[key];
  return refuse(path, "path");
}

function refuse(path: string, why: string): never {
  throw new KubeError(
    `the server rejected our request due to an error in our request: ${why} failed at ${path}`,
    {
      status: 422,
      reason: "Invalid",
    },
  );
}

function segments(path: string): string[] {
  return path
    .split("/")
    .slice(1)
    .map((part) => part.replaceAll("~1", "/").replaceAll("~0", "~"));
}

function escape(key: string): string {
  return key.replaceAll("~", "~0").replaceAll("/", "~1");
}
