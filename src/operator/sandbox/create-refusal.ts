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
  if (isForbidden(error))
    return { kind: forbiddenFor(message), trouble: forbiddenTrouble(message) };
  if (isInvalid(error)) return { kind: "never", trouble: { reason: "PodRefused", message } };
  return undefined;
}

const LIMIT_RANGE = /(maximum|minimum) .* usage per|limit to request ratio/i;
/** A rule looked at this pod and does not want it. */
const DENIED = /violates PodSecurity|denied( the)? request/i;

/**
 * Other refusals pass: a quota has room again, rights are granted, and an API server that has just
 * started refuses what its policies, rights and service accounts are not loaded for yet.
 */
function forbiddenFor(message: string): "later" | "never" {
  return LIMIT_RANGE.test(message) || DENIED.test(message) ? "never" : "later";
}

function forbiddenTrouble(message: string): Trouble {
  const isQuota = /exceeded quota|must specify .* for: /i.test(message);
  return { reason: isQuota || LIMIT_RANGE.test(message) ? "QuotaExceeded" : "PodRefused", message };
}
