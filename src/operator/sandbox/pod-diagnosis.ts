import type { ContainerStatus, Pod } from "../kinds.ts";
import type { SandboxLostReason } from "../metrics.ts";
import { DAEMON_CONTAINER, SETUP_CONTAINER } from "./pod.ts";

/**
 * What a sandbox pod's status says, in the words of `REASONS`. The kubelet's and the scheduler's own
 * text is kept: it is what a person searches for.
 */

export interface Trouble {
  reason: SandboxLostReason;
  message: string;
}

export type StartView =
  | { kind: "ready"; ip: string }
  /** Nothing will come of it: no need to wait for the deadline. */
  | { kind: "failed"; trouble: Trouble }
  /** `trouble` is the best reason known so far, for when the deadline passes. */
  | { kind: "starting"; trouble: Trouble };

/** A pod that has been asked for and has not taken a call yet. */
export function viewStart(pod: Pod): StartView {
  const gone = whyGone(pod);
  if (gone !== undefined) return { kind: "failed", trouble: gone };
  const own = pod.status?.containerStatuses ?? [];
  const statuses = [...(pod.status?.initContainerStatuses ?? []), ...own];
  for (const status of statuses) {
    const trouble = whyNotStarted(pod, status);
    if (trouble !== undefined) return { kind: "failed", trouble };
  }
  const ip = pod.status?.podIP;
  const ready = own.length > 0 && own.every((status) => status.ready);
  if (ready && ip !== undefined) return { kind: "ready", ip };
  return { kind: "starting", trouble: whyNotReady(pod, statuses) };
}

/**
 * Why a pod that has taken calls is lost; undefined while it is not. A container that was killed and
 * came back on the same volumes is no loss (its journal tells what it did), but for a lack of memory:
 * the same call would meet the same limit, and the model should hear of it.
 */
export function whyLost(pod: Pod): Trouble | undefined {
  const gone = whyGone(pod);
  if (gone !== undefined) return gone;
  const statuses = pod.status?.containerStatuses ?? [];
  const starved = statuses.find((status) =>
    terminationsOf(status).some(({ reason }) => reason === "OOMKilled"),
  );
  if (starved !== undefined) return outOfMemory(pod, starved.name);
  const crashing = statuses.find(({ state }) => state?.waiting?.reason === "CrashLoopBackOff");
  if (crashing === undefined) return undefined;
  const code = terminationsOf(crashing)[0]?.exitCode;
  return {
    reason: "CrashLoop",
    message: `${wordsFor(crashing.name)} ended ${crashing.restartCount} times, last with exit code ${code}`,
  };
}

/** The pod as a whole is ended or on its way out. */
function whyGone(pod: Pod): Trouble | undefined {
  const { status, metadata } = pod;
  const disruption = status?.conditions?.find(
    (condition) => condition.type === "DisruptionTarget" && condition.status === "True",
  );
  const said = disruption?.message ?? status?.message ?? "";
  const failed = status?.phase === "Failed" || status?.phase === "Succeeded";
  if (metadata.deletionTimestamp === undefined && !failed) return undefined;
  if (disruption?.reason === "DeletionByTaintManager" || status?.reason === "NodeLost") {
    return { reason: "NodeLost", message: withText("the sandbox's node is gone", said) };
  }
  if (disruption !== undefined || status?.reason === "Evicted") {
    return { reason: "Evicted", message: withText("the sandbox was evicted from its node", said) };
  }
  if (metadata.deletionTimestamp !== undefined) return podDeleted();
  return {
    reason: "PodFailed",
    message: withText(
      `the sandbox's node gave the pod up (${status?.reason ?? status?.phase})`,
      said,
    ),
  };
}

export function podDeleted(): Trouble {
  return { reason: "PodDeleted", message: "the sandbox's pod was deleted" };
}

const IMAGE_REASONS = new Set([
  "ErrImagePull",
  "ImagePullBackOff",
  "InvalidImageName",
  "ErrImageNeverPull",
  "ImageInspectError",
  "RegistryUnavailable",
]);
/** What a registry says when trying again will not help; other pull errors get the kubelet's second try. */
const PERMANENT_PULL =
  /not found|manifest unknown|denied|unauthorized|forbidden|does not exist|invalid/i;

function whyNotStarted(pod: Pod, status: ContainerStatus): Trouble | undefined {
  const ended = terminationsOf(status).find(({ exitCode }) => exitCode !== 0);
  if (status.name === SETUP_CONTAINER && ended !== undefined) {
    const cause =
      ended.reason === "OOMKilled"
        ? `ran out of memory (limit ${memoryLimit(pod, SETUP_CONTAINER)})`
        : `ended with exit code ${ended.exitCode}`;
    return {
      reason: "SetupFailed",
      message: withText(`the template's set-up script ${cause}`, ended.message ?? ""),
    };
  }
  const exit = terminationsOf(status)[0];
  if (status.name !== SETUP_CONTAINER && exit !== undefined) {
    if (exit.reason === "OOMKilled") return outOfMemory(pod, status.name);
    return {
      reason: "ExitedEarly",
      message: withText(
        `${wordsFor(status.name)} ended with exit code ${exit.exitCode} before the sandbox was ready; its image must be drover-sandbox or built FROM it`,
        exit.message ?? "",
      ),
    };
  }
  const { reason = "", message = "" } = status.state?.waiting ?? {};
  if (IMAGE_REASONS.has(reason)) {
    const final = reason !== "ErrImagePull" || PERMANENT_PULL.test(message);
    return final ? imagePullFailed(pod, status.name, message) : undefined;
  }
  if (reason === "CreateContainerConfigError") return { reason: "ConfigError", message };
  return undefined;
}

function whyNotReady(pod: Pod, statuses: readonly ContainerStatus[]): Trouble {
  const scheduled = pod.status?.conditions?.find(({ type }) => type === "PodScheduled");
  if (scheduled?.status === "False") {
    return {
      reason: "Unschedulable",
      message: withText("no node can run the sandbox", scheduled.message ?? ""),
    };
  }
  for (const status of statuses) {
    const { reason = "", message = "" } = status.state?.waiting ?? {};
    if (IMAGE_REASONS.has(reason)) return imagePullFailed(pod, status.name, message);
    if (reason === "CreateContainerError" || reason === "RunContainerError") {
      return { reason: "ConfigError", message: withText(reason, message) };
    }
  }
  return {
    reason: "StartDeadlineExceeded",
    message: `the sandbox is not ready: ${whatItDoes(statuses)}`,
  };
}

function whatItDoes(statuses: readonly ContainerStatus[]): string {
  const running = statuses.filter(({ state }) => state?.running !== undefined);
  if (running.some(({ name }) => name === SETUP_CONTAINER))
    return "its set-up script is still running";
  if (running.length === 0) return "its containers are not running yet";
  const waiting = statuses.find(({ state }) => state?.waiting !== undefined);
  if (waiting !== undefined) return `${wordsFor(waiting.name)} is not running yet`;
  return "its containers run, and it does not answer on /healthz";
}

/** How the container ended, the present state first. */
function terminationsOf(status: ContainerStatus) {
  return [status.state?.terminated, status.lastState?.terminated].filter(
    (terminated) => terminated !== undefined,
  );
}

function outOfMemory(pod: Pod, container: string): Trouble {
  return {
    reason: "OutOfMemory",
    message:
      container === DAEMON_CONTAINER
        ? `the sandbox's daemon ran out of memory: it may use ${memoryLimit(pod, container)}, whatever its template says`
        : `the sandbox ran out of memory: it may use ${memoryLimit(pod, container)}`,
  };
}

/** The container with the tools is what people take for the sandbox. */
function wordsFor(container: string): string {
  return container === DAEMON_CONTAINER ? "the sandbox's daemon" : "the sandbox's container";
}

function memoryLimit(pod: Pod, container: string): string {
  const all = [...(pod.spec.initContainers ?? []), ...pod.spec.containers];
  const limits = all.find(({ name }) => name === container)?.resources?.limits;
  return limits?.["memory"] ?? "as much as its node gives";
}

function imagePullFailed(pod: Pod, container: string, message: string): Trouble {
  const all = [...(pod.spec.initContainers ?? []), ...pod.spec.containers];
  const image = all.find(({ name }) => name === container)?.image;
  return {
    reason: "ImagePullFailed",
    message: withText(`the sandbox's image "${image}" cannot be pulled`, message),
  };
}

function withText(ours: string, theirs: string): string {
  return theirs.trim() === "" ? ours : `${ours}: ${theirs.trim()}`;
}
