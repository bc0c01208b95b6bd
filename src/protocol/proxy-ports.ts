/**
 * What the proxy keeps in the shared store. Implemented in `sessions/`, wired in `cmd/`, so that the
 * proxy does not import the store.
 */

/** Hash of each tool's description by name, as an agent revision saw them first. */
export type ToolPins = Readonly<Record<string, string>>;

export interface ToolPinKey {
  tenant: string;
  /** Of the Agent. */
  revision: string;
  /** SHA-256 in hex of the server's URL. */
  server: string;
}

/** Pins last 90 days from their last use. All verbs reject with UNAVAILABLE. */
export interface ToolPinStore {
  /** Null when nothing is pinned yet. */
  readPins(key: ToolPinKey): Promise<ToolPins | null>;
  /** Keeps these unless there are some already; resolves to those that hold from now on. */
  keepPins(key: ToolPinKey, pins: ToolPins): Promise<ToolPins>;
}

/** How far an audit chain had got: what is missing from the log afterwards can be told by it. */
export interface AuditCheckpoint {
  /** Names the chain of one process. */
  chain: string;
  /** Of the last record, and its hash in hex. */
  seq: number;
  hash: string;
}

/** The issuer, which adds whose chain it is, signs it and keeps it. */
export interface AuditCheckpoints {
  /** Rejects with the issuer's own code, or UNAVAILABLE when it or its store does not answer. */
  keepCheckpoint(checkpoint: AuditCheckpoint): Promise<void>;
}

/** Where the issuer keeps what it signed. No proxy may write there. */
export interface CheckpointStore {
  /** Rejects with UNAVAILABLE. */
  appendCheckpoint(signed: string): Promise<void>;
}
