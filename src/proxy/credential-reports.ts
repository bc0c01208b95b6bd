import type { CredentialReportWriter, EntryReport } from "../protocol/session-ports.ts";
import { BoundedMap } from "../runtime/bounded-map.ts";
import type { Clock } from "../runtime/clock.ts";
import type { CredentialReport } from "./reported-read.ts";

/** A report is repeated this often, so that `lastReadTime` of a status moves on. */
const REPEAT_MS = 60_000;
const MAX_KNOWN = 4096;
const MAX_MESSAGE = 1024;
const MAX_VERSION = 64;

/** What else can go wrong, a lost lease for example, says nothing about the entry. */
const REASONS: Readonly<Record<string, string>> = {
  CREDENTIAL_NOT_FOUND: "CredentialNotFound",
  CREDENTIAL_UNAVAILABLE: "CredentialUnavailable",
};

export interface CredentialReportsDeps {
  writer: CredentialReportWriter;
  clock: Clock;
}

/**
 * Tells the operator what became of entries that were read. No request waits for it: what cannot be
 * written now is written after a later read.
 */
export class CredentialReports {
  readonly #deps: CredentialReportsDeps;
  readonly #told = new BoundedMap<{ text: string; at: number }>(MAX_KNOWN);

  constructor(deps: CredentialReportsDeps) {
    this.#deps = deps;
  }

  /** For `onRead` of `reportedRead`. */
  readonly note = (read: CredentialReport): void => {
    const { writer, clock } = this.#deps;
    const found = outcomeOf(read);
    if (found === undefined) return;
    const { tenant, vault, entry } = read;
    const place = JSON.stringify([tenant, vault, entry]);
    const text = JSON.stringify(found);
    const now = clock.monotonic();
    const before = this.#told.get(place);
    if (before !== undefined && before.text === text && now - before.at < REPEAT_MS) return;
    const told = { text, at: now };
    this.#told.set(place, told);
    writer
      .writeCredentialReport({ tenant, vault, entry }, { ...found, ts: clock.now() })
      .catch(() => {
        if (this.#told.get(place) === told) this.#told.delete(place);
      });
  };
}

function outcomeOf({ failure, version }: CredentialReport): Omit<EntryReport, "ts"> | undefined {
  if (failure === undefined) {
    const known = version === undefined ? {} : { version: version.slice(0, MAX_VERSION) };
    return { ok: true, reason: "Resolved", message: "", ...known };
  }
  const reason = REASONS[failure.code];
  if (reason === undefined) return undefined;
  return { ok: false, reason, message: failure.message.slice(0, MAX_MESSAGE) };
}
