import { z } from "zod";
import type { SessionSnapshot } from "./snapshot.ts";

/**
 * What proxy and issuer need of the session store. Implemented in `sessions/`, wired in `cmd/`, so
 * that neither imports the store.
 */

export interface LeaseState {
  /** Current lease token, '' when nobody holds the session. */
  token: string;
  epoch: number;
  /** Worker id of the holder: the harness pod's UID. */
  owner: string;
  terminated: boolean;
}

export interface LeaseReader {
  /** Null when there is no such session. Rejects with UNAVAILABLE when the store does not answer. */
  readLease(tenant: string, sessionId: string): Promise<LeaseState | null>;
}

export interface SnapshotReader {
  readSnapshot(tenant: string, sessionId: string): Promise<SessionSnapshot | null>;
}

export interface BindingReader {
  readBinding(sandboxId: string): Promise<{
    sessionId: string;
    tenant: string;
    hand: string;
    generation: number;
    ip: string;
  } | null>;
}

/** What became of a CredentialVault's entry when a proxy last read it; never what it is. */
export const entryReport = z.object({
  ok: z.boolean(),
  /** One word: `Resolved`, `CredentialNotFound` or `CredentialUnavailable`. */
  reason: z.string().regex(/^[A-Za-z]{1,64}$/),
  /** For people; empty when it was read. */
  message: z.string().max(1024),
  /** Of the value that was read. */
  version: z.string().max(64).optional(),
  /** When, in epoch ms. */
  ts: z.int().min(0),
});
export type EntryReport = z.output<typeof entryReport>;

/**
 * Proxies tell the operator through it, which copies to the status of the vault
 * (docs/design/security.md#which-credential).
 */
export interface CredentialReportWriter {
  /** Replaces what was known of that entry. Rejects with UNAVAILABLE when the store does not answer. */
  writeCredentialReport(
    at: { tenant: string; vault: string; entry: string },
    report: EntryReport,
  ): Promise<void>;
}

export interface CredentialReportReader {
  /** By entry. Rejects with UNAVAILABLE when the store does not answer. */
  readCredentialReports(tenant: string, vault: string): Promise<ReadonlyMap<string, EntryReport>>;
}
