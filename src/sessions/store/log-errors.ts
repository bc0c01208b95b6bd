import { AppError } from "../../runtime/errors.ts";
import type { Seq, SessionRef } from "../session-log.ts";

export function sessionNotFound(ref: SessionRef): AppError {
  return new AppError(
    "SESSION_NOT_FOUND",
    `session ${ref.id} does not exist in "${ref.tenant}"; it was never created or has been deleted`,
    { details: { sessionId: ref.id, tenant: ref.tenant } },
  );
}

export function sessionClosed(ref: SessionRef): AppError {
  return new AppError(
    "SESSION_CLOSED",
    `session ${ref.id} is terminated and takes no more events; start a new session`,
    { details: { sessionId: ref.id } },
  );
}

export function sessionQuarantined(ref: SessionRef): AppError {
  return new AppError(
    "SESSION_QUARANTINED",
    `session ${ref.id} is set aside because five workers in a row died while they worked on it, so nobody would answer; suspend it and let it run again, or start a new session`,
    { details: { sessionId: ref.id } },
  );
}

export function leaseLost(ref: SessionRef, why: string): AppError {
  return new AppError("SESSION_LEASE_LOST", `the lease on session ${ref.id} is over: ${why}`, {
    details: { sessionId: ref.id },
  });
}

export function rewound(ref: SessionRef, tail: Seq): AppError {
  return new AppError(
    "SESSION_REWOUND",
    `the log of session ${ref.id} no longer contains what was read of it; its tail is now ${tail}. Read it again`,
    { details: { sessionId: ref.id, tail } },
  );
}
