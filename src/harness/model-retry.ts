import type { SessionEventData } from "../protocol/session-event.ts";
import { type BackoffOptions, backoffMs } from "../runtime/backoff.ts";
import type { Rng } from "../runtime/rng.ts";
import type { ModelError, ModelErrorKind } from "./model.ts";

type SessionErrorType = SessionEventData<"session.error">["type"];

interface RetryRule {
  /** Attempts in all, the first included. */
  attempts: number;
  backoff: BackoffOptions;
  errorType: SessionErrorType;
}

const NEVER: BackoffOptions = { baseMs: 0, maxMs: 0 };

/**
 * What is worth repeating. Overload and rate limits pass in tens of seconds; a malformed stream or a
 * refused token is tried again once or twice in case a proxy was at fault; what the API refuses
 * stays refused.
 */
const RULES: Record<ModelErrorKind, RetryRule> = {
  overloaded: rule(8, 1000, "model_overloaded_error"),
  rate_limited: rule(8, 1000, "model_rate_limited_error"),
  server_error: rule(6, 500, "model_request_failed_error"),
  connection: rule(8, 250, "model_request_failed_error"),
  timeout: rule(3, 500, "model_request_failed_error"),
  malformed: rule(3, 250, "model_request_failed_error"),
  unauthorized: rule(3, 250, "model_request_failed_error"),
  billing: { attempts: 1, backoff: NEVER, errorType: "billing_error" },
  too_long: { attempts: 1, backoff: NEVER, errorType: "compaction_limit_reached_error" },
  refused: { attempts: 1, backoff: NEVER, errorType: "model_request_failed_error" },
};

/**
 * An endpoint's `retry-after` is waited for up to this. Who asks for more has a limit of hours, and the
 * turn ends with an error that says so. docs/guides/troubleshoot.md names the number.
 */
const LONGEST_WAIT_MS = 15 * 60_000;

export type RetryDecision =
  | { kind: "retry"; afterMs: number; errorType: SessionErrorType }
  /** `why`: what to add to the error's own message. */
  | { kind: "give_up"; errorType: SessionErrorType; why?: string };

/** `failures`: how many attempts of this request have failed in a row, this one included. */
export function decideRetry(
  error: ModelError,
  failures: number,
  rng: Pick<Rng, "next">,
): RetryDecision {
  const { attempts, backoff, errorType } = RULES[error.kind];
  const wish = error.retryAfterMs ?? 0;
  if (failures >= attempts) return { kind: "give_up", errorType };
  if (wish > LONGEST_WAIT_MS) {
    const why = `it asks to wait ${Math.ceil(wish / 1000)} s, longer than the ${LONGEST_WAIT_MS / 1000} s that a turn waits; send a message when the limit has passed`;
    return { kind: "give_up", errorType, why };
  }
  return { kind: "retry", afterMs: Math.max(wish, backoffMs(failures, backoff, rng)), errorType };
}

function rule(attempts: number, baseMs: number, errorType: SessionErrorType): RetryRule {
  return { attempts, backoff: { baseMs, maxMs: 30_000 }, errorType };
}
