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
