import { isBeingDeleted } from "../../kube/objects.ts";
import type { Seq, SessionState } from "../../sessions/session-log.ts";
import type { Pod } from "../kinds.ts";
import { podDeleted, type Trouble, viewStart, whyLost } from "./pod-diagnosis.ts";

/**
 * What one pass over a sandbox has to do (docs/design/session-log.md#tool-calls,
 * docs/design/sandbox-pod.md). Pure. Times are epoch ms.
 */

export interface Observed {
  now: number;
  /** An open request for this generation. */
  provision?: { requestId: string; firstSeen: number } | undefined;
  /** The harness gave the sandbox back. */
  release?: { requestId: string } | undefined;
  /** As the cache has it, or as it was made when the cache has not seen it yet. */
  pod?: Pod | undefined;
  /** The last form of a pod that is gone. */
  vanished?: Pod | undefined;
  /** The session works in this pod: it was announced, and neither released nor told to be lost since. */
  bound: boolean;
  /** Why the pod could not be made so far. */
  hindrance?: Trouble | undefined;
  /** The AgentSession is there and not being deleted. */
  sessionPresent: boolean;
  /** The namespace has its isolation policies and the tokenless service account. */
  isolated: boolean;
  limits: Limits;
  /** Null when there is no log any more. */
  log: SessionState | null;
}

interface Limits {
  startDeadlineMs: number;
  idleTimeoutMs: number;
}

export type Plan =
  | { kind: "create" }
  /** Ready: record who uses it, and say so. */
  | { kind: "bind"; ip: string }
  /** It never came to be: the request is answered with this. */
  | { kind: "refuse"; trouble: Trouble }
  /** It was in use and is no more. */
  | { kind: "lose"; trouble: Trouble }
  /** Nobody used it for long enough, if the log still ends here. */
  | { kind: "release"; at: Seq }
  /** Nobody needs to hear of it: the pod goes. */
  | { kind: "discard" }
  | { kind: "wait"; trouble: Trouble; retryAfterMs: number }
  | { kind: "nothing"; recheckAfterMs?: number };

const ISOLATION_POLL_MS = 250;
/** A running session is not asked more often whether it is idle. */
const MIN_IDLE_LOOK_MS = 5_000;

export function planSandbox(observed: Observed): Plan {
  if (!observed.sessionPresent || observed.release !== undefined) return { kind: "discard" };
  if (observed.provision !== undefined) return planStart(observed, observed.provision);
  return planUse(observed);
}

function planStart(observed: Observed, provision: { firstSeen: number }): Plan {
  const { pod, now, limits } = observed;
  if (pod === undefined && observed.vanished !== undefined) {
    return { kind: "refuse", trouble: podDeleted() };
  }
  const made = Date.parse(pod?.metadata.creationTimestamp ?? "");
  const since = Number.isNaN(made) ? provision.firstSeen : Math.min(made, provision.firstSeen);
  const left = since + limits.startDeadlineMs - now;
  if (pod === undefined) return planCreation(observed, left);
  const view = viewStart(pod);
  switch (view.kind) {
    case "ready":
      return { kind: "bind", ip: view.ip };
    case "failed":
      return { kind: "refuse", trouble: view.trouble };
    case "starting":
      if (left > 0) return { kind: "wait", trouble: view.trouble, retryAfterMs: left };
      return { kind: "refuse", trouble: late(view.trouble, limits) };
  }
}

function planCreation(observed: Observed, left: number): Plan {
  const { hindrance, isolated, limits } = observed;
  if (isolated && left > 0) return { kind: "create" };
  const trouble: Trouble = hindrance ?? {
    reason: "StartDeadlineExceeded",
    message: isolated
      ? "the sandbox's pod could not be made; see the operator's log"
      : "the network isolation of sandboxes is not in place in this namespace",
  };
  if (left > 0) {
    return { kind: "wait", trouble, retryAfterMs: ISOLATION_POLL_MS };
  }
  return { kind: "refuse", trouble: late(trouble, limits) };
}

function late(trouble: Trouble, { startDeadlineMs }: Limits): Trouble {
  const message = `${trouble.message} (waited ${startDeadlineMs / 1000} s, the template's startDeadlineSeconds)`;
  return { reason: trouble.reason, message };
}

/**
 * Only what the session works in can be lost to it. A pod that is not bound and goes was taken away
 * by us: released, refused or given back, by this process or by the one before.
 */
function planUse({ pod, vanished, bound, log, limits, now }: Observed): Plan {
  if (pod === undefined) {
    if (vanished === undefined) return { kind: "nothing" };
    return bound ? { kind: "lose", trouble: podDeleted() } : { kind: "discard" };
  }
  if (log === null || log.status === "terminated") return { kind: "discard" };
  const trouble = bound ? whyLost(pod) : undefined;
  if (trouble !== undefined) return { kind: "lose", trouble };
  if (isBeingDeleted(pod)) return { kind: "nothing" };
  // Suspended keeps everything.
  if (log.status === "suspended") return { kind: "nothing" };
  const unused = !log.leased && (log.status === "idle" || log.status === "quarantined");
  if (unused) {
    const left = log.lts + limits.idleTimeoutMs - now;
    return left <= 0 ? { kind: "release", at: log.seq } : { kind: "nothing", recheckAfterMs: left };
  }
  // Should it go idle right after this look, it is due no earlier than then.
  return { kind: "nothing", recheckAfterMs: Math.max(limits.idleTimeoutMs, MIN_IDLE_LOOK_MS) };
}
