import type { CredentialEntry } from "../credentials/credential-source.ts";
import type { SessionSnapshot } from "../protocol/snapshot.ts";
import { BoundedMap } from "../runtime/bounded-map.ts";
import type { Clock } from "../runtime/clock.ts";
import { Secret } from "../runtime/secret.ts";
import { type ReportedReadDeps, reportedRead } from "./reported-read.ts";

/** A deleted Secret shows within this and the operator's own look at the reports, 15 s. */
const PAUSE_MS = 10_000;
/** That long after a session of it was served, an entry is looked at. */
const WATCHED_MS = 60 * 60_000;
/** So that one process asks the API server at most twenty times a second. */
const MAX_WATCHED = 200;

type Entry = SessionSnapshot["vaults"][number]["entries"][number];

export interface SecretChecksDeps extends ReportedReadDeps {
  /** Which entries this process adds to requests, and may read. */
  serves: (entry: Entry) => boolean;
  clock: Clock;
}

interface Watched {
  tenant: string;
  vault: string;
  entry: CredentialEntry;
  until: number;
}

/**
 * Sees that the Secret of an entry is gone or back although no request needs it, and reports it as a
 * read does. What is read is let go at once. An entry in a vault is not looked at: the vault gives its
 * value to a session that asks, and to nobody else.
 */
export class SecretChecks {
  readonly #deps: SecretChecksDeps;
  /** In the order in which they were last served. */
  readonly #watched = new BoundedMap<Watched>(MAX_WATCHED);

  constructor(deps: SecretChecksDeps) {
    this.#deps = deps;
  }

  /** A session made from this is being served. */
  served({ tenant, vaults }: SessionSnapshot): void {
    const until = this.#deps.clock.monotonic() + WATCHED_MS;
    for (const { name: vault, entries } of vaults) {
      for (const entry of entries.filter((one) => one.secretRef && this.#deps.serves(one))) {
        const key = JSON.stringify([tenant, vault, entry.name]);
        this.#watched.set(key, { tenant, vault, entry, until });
      }
    }
  }

  /** Until the signal aborts. */
  async run(signal: AbortSignal): Promise<void> {
    const { clock } = this.#deps;
    while (!signal.aborted) {
      await clock.sleep(PAUSE_MS, signal).catch(() => {});
      for (const key of this.#watched.keys()) {
        if (signal.aborted) return;
        const watched = this.#watched.get(key);
        if (watched === undefined) continue;
        if (clock.monotonic() > watched.until) this.#watched.delete(key);
        else await this.#look(watched, signal);
      }
    }
  }

  async #look({ tenant, vault, entry }: Watched, signal: AbortSignal): Promise<void> {
    // A Secret is read as this process, so no session has to be named.
    const request = { tenant, vault, entry, session: NOBODY };
    await reportedRead(this.#deps, request, signal).catch(() => {});
  }
}

const NOBODY = { id: "", token: new Secret("") };
