/**
 * How one pass of a controller ended; see docs/design/house-style.md#a-reconciler. A thrown error
 * is the fourth end.
 */
export type Outcome =
  | {
      kind: "settled";
      /** Look again after this time although nothing changed (a TTL, an idle time-out). */
      recheckAfterMs?: number;
    }
  | { kind: "waiting"; reason: string; retryAfterMs: number; message: string }
  | { kind: "stalled"; reason: string; message: string };

/** Nothing to do until something changes. */
export const settled: Outcome = Object.freeze({ kind: "settled" });

/** As `settled`, but the pass runs again after this time in any case. */
export function settledFor(recheckAfterMs: number): Outcome {
  return { kind: "settled", recheckAfterMs };
}

/** Someone else must finish; the pass runs again after exactly this time, or earlier on a change. */
export function waiting(reason: string, retryAfterMs: number, message = ""): Outcome {
  return { kind: "waiting", reason, retryAfterMs, message };
}

/** Only an edit by the user can help. */
export function stalled(reason: string, message: string): Outcome {
  return { kind: "stalled", reason, message };
}

/** A bug or an impossible state: trying again cannot help. Counted and logged, then forgotten. */
export class TerminalError extends Error {
  constructor(message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.name = "TerminalError";
  }
}

export function isTerminal(error: unknown): boolean {
  return (
    typeof error === "object" && error !== null && "name" in error && error.name === "TerminalError"
  );
}
