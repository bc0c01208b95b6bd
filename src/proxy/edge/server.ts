import type { IncomingMessage, ServerResponse } from "node:http";
import type { CredentialSource } from "../../credentials/credential-source.ts";
import type { BindingReader, LeaseReader, SnapshotReader } from "../../protocol/session-ports.ts";
import { aborted } from "../../runtime/abort.ts";
import type { Clock } from "../../runtime/clock.ts";
import { AppError, codeOf, describeError, ERROR_CODES } from "../../runtime/errors.ts";
import type { Logger } from "../../runtime/logger.ts";
import type { AuditLog } from "../audit.ts";
import { createGuardedAgent } from "../dial.ts";
import { Exchange } from "../exchange.ts";
import { createCallerServer, listenAt } from "../http-server.ts";
import type { IssuerPort } from "../issuer-client.ts";
import { RequestLimits } from "../limits.ts";
import { type Outcome, outcomeOf, type ProxyMetrics } from "../metrics.ts";
import type { CredentialReport } from "../reported-read.ts";
import { GIT_SIZES, type GitSizes } from "../roles/git/limits.ts";
import { GitRole } from "../roles/git/role.ts";
import { gitRouteOf, isLfsPath } from "../roles/git/routes.ts";
import { type SandboxCaller, SandboxTokenCheck } from "../sandbox-token.ts";
import { SessionCredentials } from "../session-credentials.ts";
import { SessionSnapshots } from "../session-snapshots.ts";
import { PublicKeys } from "../token.ts";
import { checkForeignCredentials } from "./foreign-credentials.ts";

/** Of the requests that run at one time, so that no tenant can take an edge from the others. */
const TENANT_SHARE = 0.5;
const CONNECTIONS = {
  max: 4096,
  /** Git opens a few for each command; a sandbox has an address of its own. */
  maxOfOneAddress: 64,
};
/** A minute, from one address: requests without a token that holds. */
const STRANGERS_PER_MINUTE = 60;

export interface EdgeDeps {
  issuer: Pick<IssuerPort, "keys">;
  bindings: BindingReader;
  leases: LeaseReader;
  snapshots: SnapshotReader;
  credentials: CredentialSource;
  /** Told of every read of a credential, for the status of its vault. */
  onCredentialRead: (report: CredentialReport) => void;
  /** `host:port` of git hosts that may have private addresses and plain http. */
  inClusterServers: readonly string[];
  maxInFlight: number;
  /** For one session. */
  requestsPerMinute: number;
  audit: Pick<AuditLog, "check" | "record">;
  clock: Clock;
  logger: Logger;
  metrics: ProxyMetrics;
  sizes?: GitSizes;
}

export interface EdgeServer {
  /** Resolves to the port; 0 picks a free one. */
  listen(at: { host: string; port: number }): Promise<number>;
  /** One sentence while it cannot check tokens, else undefined. */
  readiness(): string | undefined;
  /** Asks the issuer for its public keys; rejects with UNAVAILABLE when it does not answer. */
  loadKeys(): Promise<void>;
  /** Takes no new requests and lets those that run end, until `deadline` aborts. */
  close(deadline: AbortSignal): Promise<void>;
}

/** The edge: the one thing sandboxes reach, and what adds credentials to their git. */
export function createEdgeServer(deps: EdgeDeps): EdgeServer {
  const { clock, metrics } = deps;
  const keys = new PublicKeys({ issuer: deps.issuer, clock });
  const agent = createGuardedAgent({ listed: new Set(deps.inClusterServers) });
  const tokens = new SandboxTokenCheck({
    keys,
    bindings: deps.bindings,
    leases: deps.leases,
    clock,
  });
  const app = new EdgeApp({
    deps,
    tokens,
    limits: new RequestLimits({ ...deps, tenantShare: TENANT_SHARE }),
    strangers: new RequestLimits({
      ...deps,
      requestsPerMinute: STRANGERS_PER_MINUTE,
      who: "this address, without a token that holds,",
    }),
    git: new GitRole({
      tokens,
      snapshots: new SessionSnapshots({ reader: deps.snapshots, clock }),
      credentials: new SessionCredentials({
        source: deps.credentials,
        onRead: deps.onCredentialRead,
        clock,
        metrics,
      }),
      audit: deps.audit,
      agent,
      sizes: deps.sizes ?? GIT_SIZES,
      clock,
      logger: deps.logger,
      onRedaction: () => metrics.redactions.inc({ role: "git" }),
    }),
  });
  const server = createCallerServer({
    handle: (request, response) => app.handle(request, response),
    metrics,
    // A push lasts as long as it lasts; its silences are bounded where it is read.
    requestTimeoutMs: 0,
    connections: CONNECTIONS,
  });
  return {
    listen: async (at) => await listenAt(server, at),
    readiness: () => (keys.loaded ? undefined : "the issuer's public keys are not loaded"),
    loadKeys: async () => await keys.load(),
    close: async (deadline) => {
      const ended = new Promise<void>((resolve) => server.close(() => resolve()));
      server.closeIdleConnections();
      await Promise.race([ended, aborted(deadline)]);
      server.closeAllConnections();
      await agent.destroy();
    },
  };
}

interface EdgeAppParts {
  deps: EdgeDeps;
  tokens: SandboxTokenCheck;
  limits: RequestLimits;
  /** By address. */
  strangers: RequestLimits;
  git: GitRole;
}

class EdgeApp {
  readonly #parts: EdgeAppParts;

  constructor(parts: EdgeAppParts) {
    this.#parts = parts;
  }

  async handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { clock, metrics, audit } = this.#parts.deps;
    const exchange = new Exchange(request, response);
    const started = clock.monotonic();
    const outcome = await this.#serve(exchange, request);
    const ms = clock.monotonic() - started;
    metrics.requests.inc({ role: "git", destination: "git_host", outcome });
    metrics.duration.observe({ role: "git" }, ms / 1000);
    const { use, bytesIn, bytesOut } = exchange;
    // Below a token that holds and the session's limit a caller could fill the log as they like, and
    // the records that count would leave it by rotation: such requests are only counted.
    if (use.session === undefined) return;
    audit.record({ ...use, role: "git", bytesIn, bytesOut, ms });
  }

  async #serve(exchange: Exchange, request: IncomingMessage): Promise<Outcome> {
    const { limits, git, deps } = this.#parts;
    try {
      const route = gitRouteOf(exchange.method, exchange.path, exchange.query);
      const caller = await this.#caller(exchange, request);
      const { ten: tenant, sub: session } = caller.claims;
      deps.audit.check({ hasEffect: false });
      const leave = limits.enter(session, tenant);
      Object.assign(exchange.use, { tenant, session });
      try {
        return await git.serve(exchange, caller, route);
      } finally {
        leave();
      }
    } catch (error) {
      const outcome = exchange.fail(error);
      if (outcome !== "aborted") {
        const level = exchange.use.session === undefined ? "debug" : "warn";
        deps.logger[level]({ outcome, code: codeOf(error), err: describeError(error) }, "refused");
        answerError(exchange, error);
      } else exchange.breakOff();
      return outcome;
    }
  }

  /** Throws LIMIT_EXCEEDED for an address from which too much has come that was not to be served. */
  async #caller(exchange: Exchange, request: IncomingMessage): Promise<SandboxCaller> {
    const { tokens, strangers } = this.#parts;
    const address = request.socket.remoteAddress ?? "";
    strangers.check(address);
    try {
      checkForeignCredentials(request.headersDistinct, exchange.query);
      return await tokens.verify(exchange.header("authorization"), address);
    } catch (error) {
      if (outcomeOf(error) !== "unavailable") strangers.count(address);
      throw error;
    }
  }
}

/**
 * In plain text, which git prints as the remote's words. UNAUTHENTICATED is answered with 403: at a
 * 401 git asks for a name and a password, and prints no reason.
 */
function answerError(exchange: Exchange, error: unknown): void {
  if (exchange.answered) {
    exchange.breakOff();
    return;
  }
  const ours = error instanceof AppError ? error : undefined;
  const status = ours === undefined ? 500 : ERROR_CODES[ours.code].http;
  const text = ours === undefined ? "internal error; see the log of the edge" : ours.message;
  if (isLfsPath(exchange.path)) {
    exchange.sendText(status, JSON.stringify({ message: text }), "application/vnd.git-lfs+json");
    return;
  }
  exchange.sendText(
    status === 401 ? 403 : status,
    `${text} (${ours?.code ?? "INTERNAL"})\n`,
    "text/plain; charset=utf-8",
  );
}
