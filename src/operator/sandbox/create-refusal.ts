import {
  isForbidden,
  isInvalid,
  isKubeError,
  isNamespaceTerminating,
  isNotFound,
} from "../../kube/errors.ts";
import { isForeignObject } from "../../kube/ownership.ts";
import { describeError } from "../../runtime/errors.ts";
import type { Trouble } from "./pod-diagnosis.ts";

/** Why the API server did not take a pod. */
export type Refusal =
  /** Room may come: other pods of the namespace end. */
  | { kind: "later"; trouble: Trouble }
  | { kind: "never"; trouble: Trouble }
  /** The namespace goes away, and with it everybody who could want the pod. */
  | { kind: "namespace-gone" };

/** A webhook or policy that cannot answer: the API server tells which, and the next try may pass. */
export function admissionTrouble(error: unknown): Trouble | undefined {
  if (!isKubeError(error) || error.status !== 500) return undefined;
  return { reason: "PodRefused", message: describeError(error) };
}

/** Undefined for an error that says nothing about this pod. */
export function refusalOf(error: unknown): Refusal | undefined {
  if (isNamespaceTerminating(error) || isNotFound(error)) return { kind: "namespace-gone" };
  const message = describeError(error);
  // Whoever made it may delete it.
  if (isForeignObject(error)) {
    return { kind: "later", trouble: { reason: "PodRefused", message } };
  }
  if (isForbidden(error)) {
    const quota = /exceeded quota|must specify .* for: /i.test(message);
    if (quota) return { kind: "later", trouble: { reason: "QuotaExceeded", message } };
    const limits = /(maximum|minimum) .* usage per|limit to request ratio/i.test(message);
    return { kind: "never", trouble: { reason: limits ? "QuotaExceeded" : "PodRefused", message } };
  }
  if (isInvalid(error)) return { kind: "never", trouble: { reason: "PodRefused", message } };
  return undefined;
}
