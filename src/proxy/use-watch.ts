import type { Clock } from "../runtime/clock.ts";
import { codeOf } from "../runtime/errors.ts";

/** Holder and credential are looked at this often; both are read anew when they are older than that allows. */
const CHECK_MS = 1000;
/** How long nobody may be able to say who holds it: as long as a credential is held. */
const OUTAGE_MS = 60_000;

export interface WatchedUse {
  /** Rejects when the right by which it began is gone, or while that cannot be read. */
  confirm: () => Promise<void>;
  /** Rejects when the credential it began with is not to be used any more. */
  checkCredential: () => Promise<void>;
  /** What the user of it is told, by what a check rejected with. */
  endOf: (problem: unknown) => Error;
}

/**
 * Holds what is under way, for as long as it lasts, against the right and the credential that it began
 * with: what ends a session, a binding or a credential ends it within seconds, on both sides. `use`
 * must end when its signal aborts.
 */
export async function whileAllowed<T>(
  clock: Clock,
  { confirm, checkCredential, endOf }: WatchedUse,
  use: (ended: AbortSignal) => Promise<T>,
): Promise<T> {
  const end = new AbortController();
  let confirmedAt = clock.monotonic();
  let isOver = false;
  // Most uses end before the first look, so until then there is a timer and nothing else.
  let cancel = () => {};
  const lookLater = () => {
    cancel = clock.timer(CHECK_MS, () => void look());
  };
  /** Never rejects. */
  const look = async () => {
    try {
      try {
        await confirm();
        confirmedAt = clock.monotonic();
      } catch (error) {
        if (isRefusal(error) || clock.monotonic() - confirmedAt > OUTAGE_MS) throw error;
      }
      await checkCredential();
      if (!isOver) lookLater();
    } catch (problem) {
      end.abort(endOf(problem));
    }
  };
  lookLater();
  try {
    return await use(end.signal);
  } finally {
    isOver = true;
    cancel();
  }
}

/** The right is gone; anything else only says that it cannot be read now. */
function isRefusal(error: unknown): boolean {
  const code = codeOf(error);
  return code === "FORBIDDEN" || code?.startsWith("SESSION_") === true;
}
