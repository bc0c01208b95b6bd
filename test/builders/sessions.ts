import type { Json } from "../../src/protocol/session-event.ts";
import type { SessionSnapshot } from "../../src/protocol/snapshot.ts";
import { derivedSessionId } from "../../src/sessions/ids.ts";
import type {
  CreateSession,
  Lease,
  NewEvent,
  PoolKey,
  SessionRef,
  SessionStore,
} from "../../src/sessions/session-log.ts";

let made = 0;

/** A number nothing else in this process has. */
function next(): number {
  made += 1;
  return made;
}

export const TEST_POOL: PoolKey = { code: "test", partitions: 4 };

export function newRef(tenant = "team-a", pool: PoolKey = TEST_POOL): SessionRef {
  return { tenant, id: derivedSessionId(`uid-${process.pid}-${next()}`, pool) };
}

/** Enough of a snapshot to be kept and given back. */
export function snapshotOf(ref: SessionRef): SessionSnapshot {
  return {
    version: 1,
    sessionId: ref.id,
    tenant: ref.tenant,
    agent: { name: "coder", revision: "r1" },
    vaults: [],
    pool: { name: "default", uid: "pool-uid", code: TEST_POOL.code },
  } as unknown as SessionSnapshot;
}

export function event(type: string, data: Json = {}): NewEvent {
  return { id: `sevt_${process.pid}_${next()}`, type, data };
}

export function message(text: string): NewEvent {
  return event("user.message", { content: [{ type: "text", text }] });
}

export function newSession(ref: SessionRef, overrides: Partial<CreateSession> = {}): CreateSession {
  return {
    ...ref,
    snapshot: snapshotOf(ref),
    events: [message("first")],
    source: "manifest",
    ...overrides,
  };
}

/** The lease of the one session that waits, or of any of them. The worker goes on to renew it. */
export async function claimOne(store: SessionStore, worker = "worker"): Promise<Lease> {
  const { signal } = new AbortController();
  for await (const lease of store.queue(worker).claim({ capacity: () => 1, signal })) return lease;
  throw new Error("nothing to claim");
}
