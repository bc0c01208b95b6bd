import { EDGE } from "../../api/names.ts";
import type { CheckpointRequest } from "../../protocol/proxy-api.ts";
import type { CheckpointStore } from "../../protocol/proxy-ports.ts";
import { signCheckpoint } from "../../protocol/signed-checkpoint.ts";
import type { SigningKey } from "../../protocol/tokens.ts";
import { withDeadline } from "../../runtime/abort.ts";
import { BoundedMap } from "../../runtime/bounded-map.ts";
import type { Clock } from "../../runtime/clock.ts";
import { AppError } from "../../runtime/errors.ts";
import { isPoolServiceAccount } from "../names.ts";
import type { Caller } from "./decision.ts";

const STORE_MS = 2000;
/**
 * Of one pod in a minute: a proxy asks twelve times and once more at its end. Without a limit one pod
 * could push the checkpoints of all others out of the stream.
 */
const MAX_PER_MINUTE = 30;
const MINUTE_MS = 60_000;
/** More pods than an install has proxies. */
const MAX_PODS = 10_000;

export interface CheckpointsDeps {
  key: SigningKey;
  /** Namespace of the install. */
  namespace: string;
  store: CheckpointStore;
  clock: Clock;
}

/**
 * Signs how far an audit chain had got, for the pod that asks and no other, and keeps it where no
 * proxy may write. A harness has no service account token, so it cannot have its own chain signed.
 */
export class Checkpoints {
  readonly #deps: CheckpointsDeps;
  readonly #asked = new BoundedMap<{ count: number; until: number }>(MAX_PODS);

  constructor(deps: CheckpointsDeps) {
    this.#deps = deps;
  }

  /** Throws FORBIDDEN for who is no proxy, LIMIT_EXCEEDED for who asks too often, or UNAVAILABLE. */
  async keep({ chain, seq, hash }: CheckpointRequest, caller: Caller): Promise<void> {
    const { key, namespace, store, clock } = this.#deps;
    if (!isProxy(caller, namespace)) {
      throw new AppError("FORBIDDEN", "no checkpoint: only proxies of this install keep an audit");
    }
    this.#count(caller.podUid);
    const { podUid } = caller;
    const signed = await signCheckpoint(key, { podUid, chain, seq, hash, signedAt: clock.now() });
    await withDeadline(clock, STORE_MS, "keeping an audit checkpoint", () =>
      store.appendCheckpoint(signed),
    );
  }

  #count(podUid: string): void {
    const now = this.#deps.clock.monotonic();
    const known = this.#asked.get(podUid);
    const asked = known !== undefined && now < known.until ? known : undefined;
    const { count, until } = asked ?? { count: 0, until: now + MINUTE_MS };
    if (count >= MAX_PER_MINUTE) {
      throw new AppError(
        "LIMIT_EXCEEDED",
        `no checkpoint: ${MAX_PER_MINUTE} in a minute are kept for a pod`,
        {
          retryable: true,
        },
      );
    }
    this.#asked.set(podUid, { count: count + 1, until });
  }
}

/** The sidecar of a harness pod, the only container there with the token, or the edge. */
function isProxy({ serviceAccount }: Caller, namespace: string): boolean {
  const [of, name = ""] = serviceAccount.split("/");
  return of === namespace && (name === EDGE || isPoolServiceAccount(name));
}
