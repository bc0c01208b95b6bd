/** What the end of an answer means for the turn; a reason that is not named here ends it normally. */

export const WINDOW_EXCEEDED = "model_context_window_exceeded";

/** So often in a row an answer that was not complete is continued; then the turn has failed. */
export const MAX_CONTINUATIONS = 5;

/** The answer reached a limit before it was complete. */
export function isCut(stopReason: string): boolean {
  return stopReason === "max_tokens" || stopReason === WINDOW_EXCEEDED;
}

/** The model has more to say and is to be asked again. */
export function isUnfinished(stopReason: string): boolean {
  return isCut(stopReason) || stopReason === "pause_turn";
}
