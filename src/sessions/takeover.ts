import type { LogState } from "./log-state.ts";
import type { NewEvent } from "./session-log.ts";

/**
 * What becomes of a lease that ran out. Its holder may have died of the session's own work, of a
 * neighbour's work, of nothing at all (a pause, a network that was away), or it may live and have
 * dropped this one lease. Only the first is held against the session.
 *
 * - A holder counts as alive while it was heard of within a lease's life. Its lease is left alone
 *   for two more lives: a live holder renews what it holds. After that it has lost this lease
 *   without knowing, and the session is taken from it; nobody has died.
 * - A holder that is silent is taken for dead. If it is heard of later it was only away: when the
 *   session is looked at again, that death is struck off.
 * - A holder names the one suspect it holds, a session that has been with several dead holders.
 *   When it dies the suspect is blamed, and not its neighbours.
 * - A session that only waited (for a sandbox, or before it tries again) is not blamed.
 * - The second and later deaths in a row are followed by a pause that grows, and the session is a
 *   suspect: a worker takes one suspect at a time. After the fifth the session is set aside.
 */

/** Deaths of holders in a row, without progress, after which a session is set aside. */
const QUARANTINE_AFTER = 5;
/** From this many deaths on, a session is a suspect. */
export const SUSPECT_AFTER = 2;
/** `why` of a quarantined session. */
export const QUARANTINE_REASON = "takeovers";
/** What nobody has settled yet is told again after this time. */
export const TELL_AGAIN_MS = 1000;

const LONGEST_PAUSE_MS = 60_000;
/** Lives of a lease that a live holder gets beyond the first. */
const SPARE_LIVES = 2;
/** Events after which a holder only waits. */
const WAITING_TYPES: ReadonlySet<string> = new Set(["sandbox.requested", "session.error"]);

/** The last word of a holder: when, and the suspect it named ('' for none). */
export interface LastWord {
  at: number;
  suspect: string;
}

export interface TakeoverFacts {
  now: number;
  ttlMs: number;
  /** Name of the session in its partition's tables. */
  member: string;
  /** Incarnation of the worker that asks. */
  caller: string;
  heard: (incarnation: string) => LastWord | undefined;
}

export type Verdict =
  | { kind: "wait" }
  | { kind: "take" | "quarantine"; tk: number; kl: string }
  | { kind: "pause"; tk: number; kl: string; until: number };

/** One life of a worker, from the token of a lease it was given; '' for a token that names none. */
export function incarnationOf(token: string): string {
  return /^\d+\.(\w+)-/.exec(token)?.[1] ?? "";
}

export function judgeExpired(state: LogState, facts: TakeoverFacts): Verdict {
  const { now, ttlMs, member, caller } = facts;
  const holder = incarnationOf(state.tok);
  const word = holder === "" ? undefined : facts.heard(holder);
  const { deaths, count } = stillDead(state, facts);
  const asBefore = { kind: "take", tk: count, kl: deaths.join(" ") } as const;
  const lives =
    holder !== "" && (holder === caller || (word !== undefined && now - word.at < ttlMs));
  if (lives) return now - (state.due ?? now) < SPARE_LIVES * ttlMs ? { kind: "wait" } : asBefore;
  if (state.dt === state.tok) return asBefore;
  const suspect = word?.suspect ?? "";
  if ((suspect !== "" && suspect !== member) || onlyWaits(state)) return asBefore;
  const tk = count + 1;
  const kl = [...deaths, `${holder === "" ? "unknown" : holder}@${now}`].join(" ");
  if (tk >= QUARANTINE_AFTER) return { kind: "quarantine", tk, kl };
  const pause = pauseAfter(tk, ttlMs);
  return pause === 0 ? { kind: "take", tk, kl } : { kind: "pause", tk, kl, until: now + pause };
}

/** None after the first death: most workers do not die of a session. */
function pauseAfter(deaths: number, ttlMs: number): number {
  return deaths < SUSPECT_AFTER ? 0 : Math.min(LONGEST_PAUSE_MS, ttlMs * 4 ** (deaths - 1));
}

/** What the log of a session says that is set aside. */
export const QUARANTINED_ERROR = {
  type: "quarantined_error",
  message:
    "five workers in a row died while they worked on this session, so it is set aside; suspend it and let it run again to try once more",
  retry_status: "terminal",
} as const satisfies NewEvent["data"];

/** Deaths that were counted and whose worker has not been heard of since. */
function stillDead(
  state: LogState,
  { heard }: Pick<TakeoverFacts, "heard">,
): { deaths: string[]; count: number } {
  if (state.tk === 0) return { deaths: [], count: 0 };
  const known = state.kl.split(" ").filter((death) => death !== "");
  const deaths = known.filter((death) => {
    const [incarnation = "", at] = death.split("@");
    const word = heard(incarnation);
    return word === undefined || word.at < Number(at);
  });
  return { deaths, count: Math.max(0, state.tk - (known.length - deaths.length)) };
}

function onlyWaits(state: LogState): boolean {
  return state.wn > 0 && WAITING_TYPES.has(state.wt) && state.seq === state.ws + state.wc - 1;
}
