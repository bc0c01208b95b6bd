import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { CredentialSource } from "../../credentials/credential-source.ts";
import type { BindingReader, LeaseReader, SnapshotReader } from "../../protocol/session-ports.ts";
import { aborted } from "../../runtime/abort.ts";
import type { Clock } from "../../runtime/clock.ts";
import { AppError, codeOf, describeError, ERROR_CODES, isAbort } from "../../runtime/errors.ts";
import type { Logger } from "../../runtime/logger.ts";
import type { AuditLog } from "../audit.ts";
import { createGuardedAgent } from "../dial.ts";
import { Exchange } from "../exchange.ts";
import type { IssuerPort } from "../issuer-client.ts";
import { MAX_HEADERS, RequestLimits, SIZES, TIMEOUTS } from "../limits.ts";
import { type Outcome, outcomeOf, type ProxyMetrics } from "../metrics.ts";
import { GIT_SIZES, type GitSizes } from "../roles/git/limits.ts";
import { GitRole } from "../roles/git/role.ts";
import { gitRouteOf, isLfsPath } from "../roles/git/routes.ts";
import { SandboxTokenCheck } from "../sandbox-token.ts";
import { type CredentialReport, SessionCredentials } from "../session-credentials.ts";
import { SessionSnapshots } from "../session-snapshots.ts";
import { PublicKeys } from "../token.ts";
import { checkForeignCredentials } from "./foreign-credentials.ts";

/** Of the requests that run at one time, so that no tenant can take an edge from the others. */
const TENANT_SHARE = 0.5;

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
  const app = new EdgeApp({
    deps,
    tokens: new SandboxTokenCheck({ keys, bindings: deps.bindings, leases: deps.leases, clock }),
    limits: new RequestLimits({ ...deps, tenantShare: TENANT_SHARE }),
    git: new GitRole({
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
  const server = createSandboxServer((request, response) => app.handle(request, response));
  return {
    listen: async (at) => await listen(server, at),
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
    audit.record({ ...use, role: "git", bytesIn, bytesOut, ms });
  }

  async #serve(exchange: Exchange, request: IncomingMessage): Promise<Outcome> {
    const { tokens, limits, git, deps } = this.#parts;
    try {
      const route = gitRouteOf(exchange.method, exchange.path, exchange.query);
      checkForeignCredentials(request.headersDistinct, exchange.query);
      const caller = await tokens.verify(
        exchange.header("authorization"),
        request.socket.remoteAddress,
      );
      const { ten: tenant, sub: session } = caller.claims;
      Object.assign(exchange.use, { tenant, session });
      deps.audit.check({ hasEffect: false });
      const leave = limits.enter(session, tenant);
      try {
        return await git.serve(exchange, caller, route);
      } finally {
        leave();
      }
    } catch (error) {
      const outcome = exchange.signal.aborted || isAbort(error) ? "aborted" : outcomeOf(error);
      exchange.use.error ??= outcome === "aborted" ? "ABORTED" : (codeOf(error) ?? "INTERNAL");
      if (outcome !== "aborted") {
        deps.logger.warn({ outcome, code: codeOf(error), err: describeError(error) }, "refused");
        answerError(exchange, error);
      } else exchange.breakOff();
      return outcome;
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

function createSandboxServer(
  handle: (request: IncomingMessage, response: ServerResponse) => Promise<void>,
): Server {
  const server = createServer(
    {
      requireHostHeader: true,
      insecureHTTPParser: false,
      maxHeaderSize: SIZES.headers,
      headersTimeout: TIMEOUTS.headersMs,
      // A push lasts as long as it lasts; its silences are bounded where it is read.
      requestTimeout: 0,
      keepAliveTimeout: 75_000,
    },
    (request, response) => {
      handle(request, response).catch(() => response.destroy());
    },
  );
  server.maxHeadersCount = MAX_HEADERS;
  return server;
}

async function listen(server: Server, at: { host: string; port: number }): Promise<number> {
  return await new Promise((resolve, reject) => {
    server.once("error", reject);
    server.listen(at.port, at.host, () => {
      server.off("error", reject);
      const address = server.address();
      if (address === null || typeof address === "string") {
        reject(new AppError("INTERNAL", "the edge's server has no port"));
      } else resolve(address.port);
    });
  });
}
