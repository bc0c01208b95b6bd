import { type ConditionReason, SANDBOX_WAITS } from "../../api/conditions.ts";
import { inProgress, readyNow } from "../conditions.ts";
import type { SandboxWait } from "../sandbox-waits.ts";
import type { WantedStatus } from "./status-of.ts";

/**
 * How a running session shows that it waits for its sandbox. What somebody may have to act on (no
 * room, a quota, an image) makes it not Ready, with the cluster's own words; a sandbox that is only
 * slow stands in the message of Ready. Pure; times are epoch ms.
 */

/** So that a trouble is seen within five seconds. A pod that comes up meanwhile costs no write. */
const TROUBLE_SHOWS_MS = 4_000;
/** A slow start is like any other state: shorter ones are not written. */
const SLOW_SHOWS_MS = 5_000;
const PREFIX = "waits for its sandbox: ";

export function isTrouble({ reason }: { reason: string }): boolean {
  return (SANDBOX_WAITS as readonly string[]).includes(reason);
}

/** From when on it is to be shown. */
export function showsFrom(wait: SandboxWait): number {
  return wait.since + (isTrouble(wait) ? TROUBLE_SHOWS_MS : SLOW_SHOWS_MS);
}

export function withSandboxWait(wanted: WantedStatus, wait: SandboxWait): WantedStatus {
  const text = `${PREFIX}${wait.message}`;
  const shown = isTrouble(wait) ? inProgress(wait.reason, text) : readyNow("Running", text);
  return {
    ...wanted,
    conditions: [...shown, ...wanted.conditions.filter(({ type }) => type === "Completed")],
  };
}

/** The trouble with its sandbox that a status speaks of. */
export function troubleSaid(
  status: { conditions?: readonly { type: string; reason: string }[] | undefined } | undefined,
): ConditionReason | undefined {
  const ready = status?.conditions?.find(({ type }) => type === "Ready");
  return SANDBOX_WAITS.find((reason) => reason === ready?.reason);
}
