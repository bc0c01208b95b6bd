import { objectKey } from "../../kube/objects.ts";
import type { SessionSnapshot } from "../../protocol/snapshot.ts";
import type { Wanted } from "../conditions.ts";
import type { AgentSession } from "../kinds.ts";
import { conditionsOf, namesIn, type ResolvedNames } from "./resolve.ts";

/** What the controller needs of a frozen snapshot. */
export interface Pinned {
  sessionId: string;
  resolved: ResolvedNames;
  references: Wanted[];
  /** Some tool waits for a person's confirmation. */
  asksForApproval: boolean;
  pool: { name: string; uid: string };
}

/** Epoch ms. */
export interface Remembered {
  pinned?: Pinned;
  createdAt?: number;
  lastWriteAt?: number;
  /** Since when the session needs a worker and its pool has none. */
  unattendedSince?: number | undefined;
  /** How its vaults stand, and since when. */
  vaults?: { text: string; since: number };
  /** Since when nothing is known to keep a sandbox from it. */
  sandboxFineSince?: number | undefined;
}

/** What this process remembers between passes; all of it can be found again or done without. */
export class SessionMemory {
  readonly #byKey = new Map<string, { uid: string; remembered: Remembered }>();

  of(session: AgentSession): Remembered {
    const key = objectKey(session);
    const uid = session.metadata.uid ?? "";
    const known = this.#byKey.get(key);
    if (known?.uid === uid) return known.remembered;
    const remembered: Remembered = {};
    this.#byKey.set(key, { uid, remembered });
    return remembered;
  }

  forget(key: string): void {
    this.#byKey.delete(key);
  }
}

export function pinnedOf(snapshot: SessionSnapshot): Pinned {
  return {
    sessionId: snapshot.sessionId,
    resolved: namesIn(snapshot),
    references: conditionsOf(snapshot),
    asksForApproval: asksForApproval(snapshot),
    pool: { name: snapshot.pool.name, uid: snapshot.pool.uid },
  };
}

function asksForApproval({ agent }: SessionSnapshot): boolean {
  return (agent.tools ?? []).some(
    ({ defaultConfig, configs }) =>
      defaultConfig?.permissionPolicy === "always_ask" ||
      (configs ?? []).some(({ permissionPolicy }) => permissionPolicy === "always_ask"),
  );
}
