import type { SessionIdentity } from "../../../credentials/credential-source.ts";
import { BoundedMap } from "../../../runtime/bounded-map.ts";
import type { Clock } from "../../../runtime/clock.ts";
import { AppError, codeOf } from "../../../runtime/errors.ts";
import type { Caller, SessionTokenCheck } from "../../token.ts";

/** Lease and credential are looked at this often; both are read anew when they are older than that allows. */
const CHECK_MS = 1000;
/** How long the lease may be unreadable meanwhile: as long as a credential is held (security §6). */
const OUTAGE_MS = 60_000;
/** The harness waits this long for a call, so a call may outlive its token by as much. */
const CALL_MS = 300_000;
/** More sessions than a pod serves at one time. */
const MAX_CALLERS = 4096;

export interface Watched {
  caller: Caller;
  target: {
    /** For messages: `MCP server "docs"`. */
    what: string;
    credential: { version: string };
    /** The credential as it is now. Rejects with CREDENTIAL_…. */
    readCredential: (by: SessionIdentity) => Promise<{ version: string }>;
  };
  /** A stream of the server's own events: its client connects again when it ends. */
  isListening: boolean;
}

export interface StreamWatchDeps {
  tokens: Pick<SessionTokenCheck, "confirm">;
  clock: Clock;
}

/**
 * Holds what is asked of a server, for as long as it lasts, against the lease and the credential that
 * it began with: a revocation, a take-over or a termination ends it within seconds, on both sides.
 */
export class StreamWatch {
  readonly #deps: StreamWatchDeps;
  /** By lease: whoever showed the token that lasts longest, by which vaults are asked. */
  readonly #callers = new BoundedMap<Caller>(MAX_CALLERS);

  constructor(deps: StreamWatchDeps) {
    this.#deps = deps;
  }

  /** `use` must end when its signal aborts; the reason is an AppError. */
  async during<T>(watched: Watched, use: (ended: AbortSignal) => Promise<T>): Promise<T> {
    const { clock } = this.#deps;
    const end = new AbortController();
    let heldAt = clock.monotonic();
    let isOver = false;
    // Most uses end before the first look, so until then there is a timer and nothing else.
    let cancel = () => {};
    const lookLater = () => {
      cancel = clock.timer(CHECK_MS, () => void look());
    };
    /** Never rejects. */
    const look = async () => {
      try {
        const caller = this.#newest(watched.caller);
        if (await this.#isHeld(caller, heldAt)) heldAt = clock.monotonic();
        await this.#checkCredential(watched, caller);
        if (!isOver) lookLater();
      } catch (problem) {
        end.abort(endOf(watched, problem));
      }
    };
    this.#newest(watched.caller);
    lookLater();
    try {
      return await use(end.signal);
    } finally {
      isOver = true;
      cancel();
    }
  }

  /** False while nobody can say; throws when the lease is lost, or nobody could say for too long. */
  async #isHeld({ claims }: Caller, heldAt: number): Promise<boolean> {
    const { tokens, clock } = this.#deps;
    try {
      await tokens.confirm(claims, false);
      return true;
    } catch (error) {
      if (isLeaseProblem(error) || clock.monotonic() - heldAt > OUTAGE_MS) throw error;
      return false;
    }
  }

  async #checkCredential({ target, isListening }: Watched, caller: Caller): Promise<void> {
    const { claims, session } = caller;
    const left = claims.exp * 1000 - this.#deps.clock.now();
    if (left <= 0) {
      if (isListening) throw connectAgain("the session token has run out");
      if (left > -CALL_MS) return;
      throw new AppError("UNAUTHENTICATED", "the session token ran out long ago");
    }
    const { version } = await target.readCredential(session);
    // A tool that runs is not broken off for a rotation: its server has taken the old value.
    if (isListening && version !== target.credential.version) {
      throw connectAgain("the credential has changed");
    }
  }

  #newest(caller: Caller): Caller {
    const { ten, sub, ltk, exp } = caller.claims;
    const key = JSON.stringify([ten, sub, ltk]);
    const known = this.#callers.get(key);
    if (known !== undefined && known.claims.exp >= exp) return known;
    this.#callers.set(key, caller);
    return caller;
  }
}

/** The stream ended for a reason for which a new one may be opened at once. */
export function isConnectAgain(error: unknown): boolean {
  return error instanceof AppError && error.details["connectAgain"] === true;
}

function connectAgain(why: string): AppError {
  return new AppError("UNAVAILABLE", why, { retryable: true, details: { connectAgain: true } });
}

/** Whatever was sent may have had its effect, so it must not look refused before it was sent. */
function endOf({ target }: Watched, problem: unknown): AppError {
  if (problem instanceof AppError && isConnectAgain(problem)) return problem;
  const { code, message } =
    problem instanceof AppError ? problem : new AppError("INTERNAL", "it could not be checked");
  // Its status, 404, would tell an MCP client that its call has not run and may be sent again.
  const told = code === "CREDENTIAL_NOT_FOUND" ? "CREDENTIAL_UNAVAILABLE" : code;
  return new AppError(told, `what ${target.what} was asked is broken off: ${message}`, {
    cause: problem,
    details: { outcome: "unknown" },
  });
}

function isLeaseProblem(error: unknown): boolean {
  return codeOf(error)?.startsWith("SESSION_") === true;
}
