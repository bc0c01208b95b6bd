import { BoundedMap } from "../runtime/bounded-map.ts";
import type { Clock } from "../runtime/clock.ts";
import { AppError } from "../runtime/errors.ts";

/** docs/design/security.md#limits, in bytes. */
export const SIZES = {
  /** An MCP request. */
  mcpRequest: 4 * 1024 * 1024,
  /** What the Messages API itself accepts. */
  modelRequest: 32 * 1024 * 1024,
  tokensRequest: 16 * 1024,
  jsonAnswer: 16 * 1024 * 1024,
  /** One page of a server's list of tools. */
  toolsAnswer: 4 * 1024 * 1024,
  sseEvent: 4 * 1024 * 1024,
  sseStream: 64 * 1024 * 1024,
  /** All request headers together. */
  headers: 16 * 1024,
} as const;

export const MAX_HEADERS = 100;
export const MAX_JSON_DEPTH = 64;
/**
 * Values and keys of one JSON text. Each takes a hundred bytes and more once it is read, however short
 * its text is: 16 MiB of `[],` would be a gigabyte.
 */
export const MAX_JSON_VALUES = 100_000;
/** Bodies that are kept to be read as a whole, all together; a proxy has 384 MiB for all it does. */
export const KEPT_BODIES = { maxBytes: 40 * 1024 * 1024, sessionShare: 0.5 } as const;
/** Requests that an MCP server may make of its client in one stream; each is refused with a POST. */
export const SERVER_REQUESTS = 16;

export const TIMEOUTS = {
  connectMs: 5000,
  /** Until the first byte of an answer. */
  headersMs: 10_000,
  /** Added to what a call may take, so that the harness, which counts it too, says that time is up. */
  callMarginMs: 5000,
  /** The same for the model: a request without streaming answers when it is complete. */
  modelHeadersMs: 600_000,
  /** Silence inside an answer. */
  bodyIdleMs: 120_000,
  /** One request of the harness must have arrived by then. */
  requestMs: 60_000,
  /** Silence inside the body of one. */
  requestIdleMs: 15_000,
  storeMs: 2000,
  issuerMs: 5000,
} as const;

/** At one time, for one session. */
export const SESSION_IN_FLIGHT = 32;
/** For one session; as many at once, then evenly. */
export const REQUESTS_PER_MINUTE = 600;
const MAX_SESSIONS = 4096;

export interface RequestLimitsOptions {
  maxInFlight: number;
  /** Part of `maxInFlight` that one tenant may take; all of it without. */
  tenantShare?: number;
  requestsPerMinute: number;
  /** Whose requests are counted by the minute, for messages; the session's without. */
  who?: string;
  clock: Clock;
}

/** Counts requests; `enter` throws LIMIT_EXCEEDED (retryable) past a limit. */
export class RequestLimits {
  readonly #options: RequestLimitsOptions;
  readonly #bySession = new Map<string, number>();
  readonly #byTenant = new Map<string, number>();
  /** What is left to a session, and when that was so. */
  readonly #allowances = new BoundedMap<{ left: number; at: number }>(MAX_SESSIONS);
  #total = 0;

  constructor(options: RequestLimitsOptions) {
    this.#options = options;
  }

  /** The returned function ends the request; call it exactly once. */
  enter(session: string, tenant: string): () => void {
    const { maxInFlight, tenantShare = 1 } = this.#options;
    const running = this.#bySession.get(session) ?? 0;
    if (running >= SESSION_IN_FLIGHT) {
      throw tooMany(`the session has ${SESSION_IN_FLIGHT} requests in flight`, SESSION_IN_FLIGHT);
    }
    if (this.#total >= maxInFlight) {
      throw tooMany(`the proxy has ${maxInFlight} requests in flight`, maxInFlight);
    }
    const ofTenant = Math.ceil(maxInFlight * tenantShare);
    if ((this.#byTenant.get(tenant) ?? 0) >= ofTenant) {
      throw tooMany(`the sessions of "${tenant}" have ${ofTenant} requests in flight`, ofTenant);
    }
    this.count(session);
    add(this.#bySession, session, 1);
    add(this.#byTenant, tenant, 1);
    this.#total += 1;
    return () => {
      this.#total -= 1;
      add(this.#bySession, session, -1);
      add(this.#byTenant, tenant, -1);
    };
  }

  /** For a request that lasts, such as a listening stream: it counts by its start alone. */
  count(session: string): void {
    const left = this.check(session) - 1;
    this.#allowances.set(session, { left, at: this.#options.clock.monotonic() });
  }

  /** How many requests are left; throws like `count` when none is, but counts none. */
  check(session: string): number {
    const { requestsPerMinute: limit, who = "the session", clock } = this.#options;
    const now = clock.monotonic();
    const { left, at } = this.#allowances.get(session) ?? { left: limit, at: now };
    const allowance = Math.min(limit, left + ((now - at) * limit) / 60_000);
    if (allowance >= 1) return allowance;
    throw tooMany(`${who} has made ${limit} requests in a minute`, limit);
  }
}

/** Who has none is not kept. */
function add(counts: Map<string, number>, key: string, change: 1 | -1): void {
  const count = (counts.get(key) ?? 0) + change;
  if (count <= 0) counts.delete(key);
  else counts.set(key, count);
}

function tooMany(what: string, limit: number): AppError {
  return new AppError("LIMIT_EXCEEDED", `${what} already; try again later`, {
    retryable: true,
    details: { limit },
  });
}
