import type { SessionIdentity } from "../credentials/credential-source.ts";
import { BoundedMap } from "../runtime/bounded-map.ts";
import type { Clock } from "../runtime/clock.ts";
import { AppError } from "../runtime/errors.ts";
import type { Caller, SessionTokenCheck } from "./token.ts";
import { whileAllowed } from "./use-watch.ts";

/** The harness waits this long for a call, so a call may outlive its token by as much. */
const CALL_MS = 300_000;
/** More sessions than a pod serves at one time. */
const MAX_CALLERS = 4096;

export interface Watched {
  caller: Caller;
  target: {
    /** For messages: `MCP server "docs"`. */
    what: string;
    /** Undefined: it is asked without one. */
    credential: { version: string } | undefined;
    /** The credential as it is now. Rejects with CREDENTIAL_…. */
    readCredential: (by: SessionIdentity) => Promise<{ version: string } | undefined>;
  };
  kind: UseKind;
}

/**
 * `call`: of a tool, it may outlive its token by as long as the harness waits for it. `answer`: of a
 * model, it takes as long as it takes. `listening`: a server's own events, whose client connects
 * again when the stream ends.
 */
export type UseKind = "call" | "answer" | "listening";

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
    const { clock, tokens } = this.#deps;
    this.#newest(watched.caller);
    return await whileAllowed(
      clock,
      {
        confirm: async () => await tokens.confirm(this.#newest(watched.caller).claims, false),
        checkCredential: async () =>
          await this.#checkCredential(watched, this.#newest(watched.caller)),
        endOf: (problem) => endOf(watched, problem),
      },
      use,
    );
  }

  async #checkCredential({ target, kind }: Watched, caller: Caller): Promise<void> {
    const { claims, session } = caller;
    const left = claims.exp * 1000 - this.#deps.clock.now();
    if (left <= 0) {
      if (kind === "listening") throw connectAgain("the session token has run out");
      if (kind === "answer" || left > -CALL_MS) return;
      throw new AppError("UNAUTHENTICATED", "the session token ran out long ago");
    }
    const now = await target.readCredential(session);
    // A tool that runs is not broken off for a rotation: its server has taken the old value.
    if (kind === "listening" && now?.version !== target.credential?.version) {
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
