import type { ExecuteClaims } from "../protocol/tokens.ts";
import { AppError } from "../runtime/errors.ts";

/**
 * Whom a daemon belongs to, and which callers are superseded. The first valid token binds the daemon
 * to its session, hand and generation for ever; the highest epoch seen fences earlier lease holders
 * (docs/design/session-log.md#tool-calls, docs/design/security.md#tokens).
 */
export interface Binding {
  sessionId: string;
  tenant: string;
  hand: string;
  generation: number;
  /** Highest epoch seen. */
  epoch: number;
}

/**
 * The binding after a caller with these (verified) claims: a new value when something changed, else
 * `current` itself. Throws FORBIDDEN for a token of another sandbox, SANDBOX_BOUND for another owner.
 */
export function bind(
  current: Binding | undefined,
  sandboxId: string,
  claims: ExecuteClaims,
): Binding {
  if (claims.sbx !== sandboxId) {
    throw new AppError("FORBIDDEN", "the execute token is for another sandbox");
  }
  if (current === undefined) {
    return {
      sessionId: claims.sub,
      tenant: claims.ten,
      hand: claims.hand,
      generation: claims.gen,
      epoch: claims.epoch,
    };
  }
  const same =
    current.sessionId === claims.sub &&
    current.tenant === claims.ten &&
    current.hand === claims.hand &&
    current.generation === claims.gen;
  if (!same) {
    throw new AppError(
      "SANDBOX_BOUND",
      "this sandbox is bound to another session, hand or generation; ask for one of your own",
    );
  }
  return claims.epoch > current.epoch ? { ...current, epoch: claims.epoch } : current;
}

/** Throws SANDBOX_STALE_EPOCH when a later lease holder has been here. `what` is for the message. */
export function refuseStale(binding: Pick<Binding, "epoch">, epoch: number, what: string): void {
  if (epoch < binding.epoch) {
    throw new AppError(
      "SANDBOX_STALE_EPOCH",
      `${what} refused: epoch ${epoch} is superseded by ${binding.epoch}; another worker holds the session`,
    );
  }
}
