import { describeError } from "../runtime/errors.ts";
import { KubeError } from "./errors.ts";

/** `metav1.Status`, as far as it is read. */
interface Status {
  message?: string;
  reason?: string;
  code?: number;
  details?: { retryAfterSeconds?: number };
}

/** The error for an answer that is not 2xx; `what` says what was tried, on which object. */
export function answerError(
  what: string,
  httpStatus: number,
  body: string,
  retryAfter: string | undefined,
): KubeError {
  const status = parseStatus(body);
  const text = status?.message ?? body.trim().slice(0, 200);
  const message = `${what} failed: ${text || `the API server answered ${httpStatus}`}`;
  return new KubeError(message, {
    status: httpStatus,
    reason: status?.reason ?? "Unknown",
    retryAfterMs: retryAfterMs(retryAfter) ?? detailsRetryMs(status),
  });
}

/** The error for an `ERROR` event of a watch, whose object is a Status. */
export function watchError(what: string, object: unknown): KubeError {
  const status = isStatus(object) ? object : {};
  return new KubeError(`${what} failed: ${status.message ?? "the API server ended it"}`, {
    status: status.code ?? 500,
    reason: status.reason ?? "Unknown",
    retryAfterMs: detailsRetryMs(status),
  });
}

/** The error for a request that got no answer. */
export function connectionError(what: string, cause: unknown, timedOut: boolean): KubeError {
  return new KubeError(`${what} failed: ${describeError(cause)}`, {
    status: 0,
    reason: timedOut ? "Timeout" : "Unreachable",
    cause,
  });
}

/** `Retry-After` in seconds; the API server does not send dates. */
function retryAfterMs(header: string | undefined): number | undefined {
  const seconds = Number(header);
  return header === undefined || !(seconds >= 0) ? undefined : seconds * 1000;
}

function detailsRetryMs(status: Status | undefined): number | undefined {
  const seconds = status?.details?.retryAfterSeconds;
  return seconds === undefined || seconds <= 0 ? undefined : seconds * 1000;
}

function parseStatus(body: string): Status | undefined {
  try {
    const parsed: unknown = JSON.parse(body);
    return isStatus(parsed) ? parsed : undefined;
  } catch {
    return undefined; // a proxy's HTML, say
  }
}

function isStatus(value: unknown): value is Status {
  return typeof value === "object" && value !== null && "kind" in value && value.kind === "Status";
}
