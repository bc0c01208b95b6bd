import type { Redis } from "ioredis";
import type { LeaseState } from "../../protocol/session-ports.ts";
import type { SessionSnapshot } from "../../protocol/snapshot.ts";
import { AppError, hasCode } from "../../runtime/errors.ts";
import type { Page } from "../backend.ts";
import { chainAt } from "../chain.ts";
import { bindingKey, type SessionKeys, sessionKeys } from "../keys.ts";
import {
  type Head,
  LOG_STATUSES,
  type LogStatus,
  type SandboxBinding,
  type SessionPorts,
  type SessionRef,
  type SessionState,
  type StoredEvent,
} from "../session-log.ts";
import { decodeEntries } from "./event-codec.ts";

/** Everything that is read without a script: HMGET, GET and XRANGE only. */
export class PlainReads implements SessionPorts {
  readonly #connection: Redis;

  constructor(connection: Redis) {
    this.#connection = connection;
  }

  async head(ref: SessionRef): Promise<Head | null> {
    const keys = sessionKeys(ref);
    const fields = ["seq", "lid", "gen", "st", "why", "ch"];
    const [seq, lid, gen, st, why, ch] = await this.#connection.hmget(keys.meta, ...fields);
    if (seq === null || seq === undefined) return null;
    return {
      pos: { seq: Number(seq), id: lid ?? "", chain: chainAt(ch ?? "", Number(seq)) },
      gen: gen ?? "",
      status: statusOf(st),
      why: why ?? "",
    };
  }

  async stateOf(ref: SessionRef): Promise<SessionState | null> {
    const { meta } = sessionKeys(ref);
    const fields = ["st", "why", "tok", "ep", "seq", "lts"];
    const [st, why, tok, ep, seq, lts] = await this.#connection.hmget(meta, ...fields);
    if (seq === null || seq === undefined) return null;
    return {
      status: statusOf(st),
      why: why ?? "",
      leased: (tok ?? "") !== "",
      epoch: Number(ep),
      seq: Number(seq),
      lts: Number(lts),
    };
  }

  async snapshotOf(ref: SessionRef): Promise<SessionSnapshot | null> {
    const json = await this.#connection.get(sessionKeys(ref).snapshot);
    // Written by createSession only, from a checked snapshot.
    return json === null ? null : JSON.parse(json);
  }

  /** One page, or null when there is no such log. */
  async page(ref: SessionRef, page: Page): Promise<StoredEvent[] | null> {
    const keys = sessionKeys(ref);
    const events = await this.#range(keys, page);
    if (events.length > 0) return events;
    const [seq] = await this.#connection.hmget(keys.meta, "seq");
    return seq === null ? null : events;
  }

  async readLease(tenant: string, sessionId: string): Promise<LeaseState | null> {
    const keys = keysOrNull({ tenant, id: sessionId });
    if (keys === null) return null;
    const [token, epoch, owner, st] = await this.#connection.hmget(
      keys.meta,
      "tok",
      "ep",
      "own",
      "st",
    );
    if (token === null || token === undefined) return null;
    return { token, epoch: Number(epoch), owner: owner ?? "", terminated: st === "terminated" };
  }

  async readSnapshot(tenant: string, sessionId: string): Promise<SessionSnapshot | null> {
    const ref = { tenant, id: sessionId };
    return keysOrNull(ref) === null ? null : await this.snapshotOf(ref);
  }

  async readBinding(sandboxId: string): Promise<SandboxBinding | null> {
    const json = await this.#connection.get(bindingKey(sandboxId));
    return json === null ? null : JSON.parse(json);
  }

  async #range(keys: SessionKeys, page: Page): Promise<StoredEvent[]> {
    if (page.limit <= 0 || (page.before !== undefined && page.before <= 1)) return [];
    const from = `${(page.after ?? 0) + 1}-0`;
    const to = page.before === undefined ? "+" : `${page.before - 1}-0`;
    const entries = page.reverse
      ? await this.#connection.xrevrange(keys.log, to, from, "COUNT", page.limit)
      : await this.#connection.xrange(keys.log, from, to, "COUNT", page.limit);
    const payloadsOf = (hashes: string[]) => this.#connection.hmget(keys.payloads, ...hashes);
    return await decodeEntries(entries, payloadsOf, page.dataOf);
  }
}

/** A caller may present any id; one that names nothing is no error for a reader. */
function keysOrNull(ref: SessionRef): SessionKeys | null {
  try {
    return sessionKeys(ref);
  } catch (error) {
    if (hasCode(error, "SESSION_NOT_FOUND")) return null;
    throw error;
  }
}

export function statusOf(text: string | null | undefined): LogStatus {
  const status = LOG_STATUSES.find((each) => each === text);
  if (status === undefined) {
    throw new AppError("INTERNAL", `Redis holds a session status "${text}" that is unknown here`);
  }
  return status;
}
