import type { CallOutcome } from "./run-context.ts";

/** What the model is told about calls that did not simply end: each sentence says what it can do. */

export const environmentLost: CallOutcome = {
  content:
    "The environment was lost while this call was running. It may have had none, part or all of its effect. " +
    "A new environment starts from its template: files made before are gone. Check before repeating.",
  isError: true,
  outcome: "unknown",
};

export const neverStarted: CallOutcome = {
  content:
    "The environment was lost before this call started; it had no effect. " +
    "A new environment starts from its template: files made before are gone.",
  isError: true,
  outcome: "known",
};

export const outcomeUnknown: CallOutcome = {
  content:
    "The outcome of this call is unknown: it was started, and its answer was lost. " +
    "It may have had none, part or all of its effect. Check before repeating.",
  isError: true,
  outcome: "unknown",
};

export const interrupted: CallOutcome = {
  content: "The user interrupted this call before it ended; it may be tried again.",
  isError: true,
  outcome: "cancelled",
};

export const interruptedUnknown: CallOutcome = {
  content:
    "The user interrupted this call, and whether it had stopped by then is unknown. " +
    "It may have had none, part or all of its effect. Check before repeating.",
  isError: true,
  outcome: "unknown",
};

export function environmentFailed(reason: string, message: string): CallOutcome {
  const detail = message === "" ? "" : ` ${message}`;
  return {
    content: `The environment for this call could not be started (${reason}).${detail} The call had no effect.`,
    isError: true,
    outcome: "known",
  };
}

/** After a long wait for something that the call needs; it has not been sent. */
export function neverSent(why: string): CallOutcome {
  return knownError(`The call was not sent and had no effect: ${why}`);
}

/** Something other than a daemon's answer came from the sandbox. */
export function notUnderstood(why: string, mayHaveRun: boolean): CallOutcome {
  const what = `The environment gave an answer that cannot be used: ${why}.`;
  if (!mayHaveRun) return knownError(`${what} The call was not sent and had no effect.`);
  return {
    content: `${what} The call may have had none, part or all of its effect. Check before repeating.`,
    isError: true,
    outcome: "unknown",
  };
}

export function knownError(content: string): CallOutcome {
  return { content, isError: true, outcome: "known" };
}

export function denied(message: string | undefined): CallOutcome {
  const why = message === undefined || message === "" ? "" : ` ${message}`;
  return { content: `The call was rejected.${why}`, isError: true, outcome: "denied" };
}
