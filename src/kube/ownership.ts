/** Whose an object is, asked before every write, so that a stranger's object is never taken over. */
import { AppError } from "../runtime/errors.ts";
import type { ApplyOptions, KubeClient } from "./client.ts";
import { unlessNotFound } from "./errors.ts";
import {
  apiVersionOf,
  describeObject,
  type KubeObject,
  type ObjectMeta,
  type OwnerReference,
  type ResourceType,
  uidOf,
} from "./objects.ts";

export type Ownership = "ours" | "nobody's" | "someone else's";

/** How we know our own: by the controller reference, or by a label where no reference can point. */
export type Claim = { owner: OwnerReference } | { label: string; value: string };

/** The reference that makes `owner` the controller of an object in its namespace. */
export function ownerReferenceTo(
  type: ResourceType,
  owner: Pick<KubeObject, "metadata"> & Partial<KubeObject>,
): OwnerReference {
  const uid = uidOf({ apiVersion: apiVersionOf(type), kind: type.kind, metadata: owner.metadata });
  return {
    apiVersion: apiVersionOf(type),
    kind: type.kind,
    name: owner.metadata.name,
    uid,
    controller: true,
    blockOwnerDeletion: true,
  };
}

export function controllerOf(object: {
  metadata: Pick<ObjectMeta, "ownerReferences">;
}): OwnerReference | undefined {
  return object.metadata.ownerReferences?.find((reference) => reference.controller === true);
}

export function ownershipOf(
  object: { metadata: Pick<ObjectMeta, "ownerReferences" | "labels"> },
  claim: Claim,
): Ownership {
  const controller = controllerOf(object);
  if ("owner" in claim) {
    if (controller === undefined) return "nobody's";
    return controller.uid === claim.owner.uid ? "ours" : "someone else's";
  }
  const value = object.metadata.labels?.[claim.label];
  if (value === claim.value) return "ours";
  return value === undefined && controller === undefined ? "nobody's" : "someone else's";
}

/** Someone made an object by the name we need; the message says which and what to do. */
export class ForeignObjectError extends AppError {
  constructor(type: ResourceType, object: { metadata: ObjectMeta }, claim: Claim) {
    const what = describeObject(type, object.metadata);
    const by =
      "owner" in claim
        ? `${claim.owner.kind} "${claim.owner.name}"`
        : `label ${claim.label}=${claim.value}`;
    super(
      "CONFLICT",
      `${what} exists and is ${ownershipOf(object, claim)} (wanted: owned by ${by}); delete or rename it`,
    );
    this.name = "ForeignObjectError";
  }
}

export function isForeignObject(error: unknown): error is ForeignObjectError {
  return (
    typeof error === "object" &&
    error !== null &&
    "name" in error &&
    error.name === "ForeignObjectError"
  );
}

/** Throws ForeignObjectError unless the object is ours. */
function requireOurs(type: ResourceType, object: { metadata: ObjectMeta }, claim: Claim): void {
  if (ownershipOf(object, claim) !== "ours") throw new ForeignObjectError(type, object, claim);
}

/**
 * Server-side apply of an object that must be ours: reads what is there now, refuses a stranger's,
 * and pins the UID it saw, so that an object swapped in meanwhile is refused. (Only a stranger
 * who creates between our read and our first apply can slip in; a second apply then refuses it.)
 * The claim's owner reference or label is added.
 */
export async function applyOwned<T extends KubeObject>(
  client: Pick<KubeClient, "get" | "apply">,
  type: ResourceType<T>,
  object: T,
  claim: Claim,
  options: ApplyOptions,
): Promise<T> {
  const existing = await unlessNotFound(client.get(type, object.metadata, callOptions(options)));
  if (existing !== undefined) requireOurs(type, existing, claim);
  const uid = existing?.metadata.uid;
  const metadata = { ...claimed(object.metadata, claim), ...(uid === undefined ? {} : { uid }) };
  return client.apply(type, { ...object, metadata }, options);
}

/** The metadata with the claim's owner reference or label in it. */
function claimed(metadata: ObjectMeta, claim: Claim): ObjectMeta {
  if ("owner" in claim) {
    const others = (metadata.ownerReferences ?? []).filter(({ uid }) => uid !== claim.owner.uid);
    return { ...metadata, ownerReferences: [...others, claim.owner] };
  }
  return { ...metadata, labels: { ...metadata.labels, [claim.label]: claim.value } };
}

function callOptions(options: ApplyOptions): { signal?: AbortSignal } {
  return options.signal === undefined ? {} : { signal: options.signal };
}
