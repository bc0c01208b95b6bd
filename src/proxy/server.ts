import type { IncomingMessage, ServerResponse } from "node:http";
import type { CredentialSource } from "../credentials/credential-source.ts";
import { tokensRequest } from "../protocol/proxy-api.ts";
import type { ToolPinStore } from "../protocol/proxy-ports.ts";
import type { LeaseReader, SnapshotReader } from "../protocol/session-ports.ts";
import type { Clock } from "../runtime/clock.ts";
import { AppError, codeOf, describeError } from "../runtime/errors.ts";
import { errorResponse } from "../runtime/http.ts";
import type { Logger } from "../runtime/logger.ts";
import { MCP_CALL_MS } from "../runtime/mcp-settings.ts";
import { Secret } from "../runtime/secret.ts";
import type { AuditLog } from "./audit.ts";
import { authority, createGuardedAgent } from "./dial.ts";
import { Exchange } from "./exchange.ts";
import { createCallerServer, listenAt } from "./http-server.ts";
import { IssuedTokens } from "./issued-tokens.ts";
import type { IssuerPort } from "./issuer-client.ts";
import { parseJsonText } from "./json-text.ts";
import { KEPT_BODIES, MAX_JSON_DEPTH, RequestLimits, SIZES, TIMEOUTS } from "./limits.ts";
import { MemoryBudget } from "./memory-budget.ts";
import { DESTINATIONS, type Outcome, type ProxyMetrics, type Role } from "./metrics.ts";
import { type PoolKeyReader, PoolModelKey } from "./model-key.ts";
import type { CredentialReport } from "./reported-read.ts";
import { PinnedTools } from "./roles/mcp/pinned-tools.ts";
import { SealedIds } from "./roles/mcp/sealed-ids.ts";
import { McpRole } from "./roles/mcp/upstream.ts";
import { MODEL_ROUTES, modelErrorBody } from "./roles/model/policy.ts";
import { ModelRole } from "./roles/model/upstream.ts";
import { SessionCredentials } from "./session-credentials.ts";
import { SessionSnapshots } from "./session-snapshots.ts";
import { StreamWatch } from "./stream-watch.ts";
import { PublicKeys, SessionTokenCheck } from "./token.ts";

export interface ProxyDeps {
  issuer: Pick<IssuerPort, "issue" | "keys">;
  leases: LeaseReader;
  snapshots: SnapshotReader;
  credentials: CredentialSource;
  /** Told of every read of a credential, for the status of its vault. */
  onCredentialRead: (report: CredentialReport) => void;
  /** UID of this harness pod: the worker id in its leases. */
  podUid: string;
  /** Without `poolKey` requests of sessions that have no key of their own carry none. */
  model: { baseUrl: string; poolKey?: PoolKeyReader | undefined };
  /** `host:port` of MCP servers that may have private addresses and plain http. */
  inClusterServers: readonly string[];
  /** So long a call of an MCP tool may take; `MCP_CALL_MS` if absent. */
  mcpCallMs?: number;
  maxInFlight: number;
  /** For one session. */
  requestsPerMinute: number;
  audit: AuditLog;
  toolPins: ToolPinStore;
  clock: Clock;
  logger: Logger;
  metrics: ProxyMetrics;
}

export interface ProxyServer {
  /** Binds 127.0.0.1 only; port 0 picks a free one. Resolves to the port. */
  listen(port: number): Promise<number>;
  /** One sentence while it cannot check tokens, else undefined. */
  readiness(): string | undefined;
  /** Asks the issuer for its public keys; rejects with UNAVAILABLE when it does not answer. */
  loadKeys(): Promise<void>;
  close(): Promise<void>;
}

/** The sidecar: `/tokens`, `/model/…` and `/mcp/{server}` for the harness beside it. */
export function createProxyServer(deps: ProxyDeps): ProxyServer {
  const { clock, metrics } = deps;
  const keys = new PublicKeys({ issuer: deps.issuer, clock });
  const tokens = new SessionTokenCheck({
    keys,
    leases: deps.leases,
    podUid: deps.podUid,
    clock,
  });
  const modelAgent = createGuardedAgent({ listed: new Set([hostOf(deps.model.baseUrl)]) });
  const mcpAgent = createGuardedAgent({ listed: new Set(deps.inClusterServers) });
  const snapshots = new SessionSnapshots({ reader: deps.snapshots, clock });
  const credentials = new SessionCredentials({
    source: deps.credentials,
    onRead: deps.onCredentialRead,
    clock,
    metrics,
  });
  // One for both roles: a model's answer outlives its token, and a tool call may show a newer one.
  const watch = new StreamWatch({ tokens, clock });
  const app = new ProxyApp({
    deps,
    tokens,
    issued: new IssuedTokens({ issuer: deps.issuer, clock }),
    limits: new RequestLimits(deps),
    memory: new MemoryBudget(KEPT_BODIES),
    model: new ModelRole({
      baseUrl: deps.model.baseUrl,
      agent: modelAgent,
      snapshots,
      credentials,
      poolKey: new PoolModelKey({ reader: deps.model.poolKey, clock }),
      watch,
      onRedaction: () => metrics.redactions.inc({ role: "model" }),
    }),
    mcp: new McpRole({
      tokens,
      watch,
      snapshots,
      credentials,
      agent: mcpAgent,
      sealedIds: new SealedIds({ clock }),
      pins: new PinnedTools({ store: deps.toolPins, clock }),
      audit: deps.audit,
      onDrift: (tools) => metrics.toolDrift.inc(tools),
      onServerRequest: () => metrics.serverRequests.inc(),
      callMs: deps.mcpCallMs ?? MCP_CALL_MS,
      clock,
      logger: deps.logger,
      onRedaction: () => metrics.redactions.inc({ role: "mcp" }),
    }),
  });
  const server = createCallerServer({
    handle: (request, response) => app.handle(request, response),
    metrics,
    requestTimeoutMs: TIMEOUTS.requestMs,
  });
  return {
    listen: async (port) => {
      const bound = await listenAt(server, { host: "127.0.0.1", port });
      app.authorities = new Set([`127.0.0.1:${bound}`, `localhost:${bound}`]);
      return bound;
    },
    readiness: () => (keys.loaded ? undefined : "the issuer's public keys are not loaded"),
    loadKeys: async () => await keys.load(),
    close: async () => {
      await new Promise<void>((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      });
      await Promise.all([modelAgent.destroy(), mcpAgent.destroy()]);
    },
  };
}

interface ProxyAppParts {
  deps: ProxyDeps;
  tokens: SessionTokenCheck;
  issued: IssuedTokens;
  limits: RequestLimits;
  memory: MemoryBudget;
  model: ModelRole;
  mcp: McpRole;
}

type Route = { role: "tokens" } | { role: "model"; path: string } | { role: "mcp"; server: string };

class ProxyApp {
  readonly #parts: ProxyAppParts;
  /** What a `Host` header may say; empty until the port is known. */
  authorities: ReadonlySet<string> = new Set();

  constructor(parts: ProxyAppParts) {
    this.#parts = parts;
  }

  async handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { clock, metrics } = this.#parts.deps;
    const exchange = new Exchange(request, response);
    const route = routeOf(exchange.method, exchange.path);
    if (route === undefined) {
      metrics.unserved.inc({ reason: "no_route" });
      answerError(exchange, undefined, new AppError("NOT_FOUND", "there is no such route"));
      return;
    }
    const started = clock.monotonic();
    const { role } = route;
    const outcome = await this.#serve(exchange, route);
    metrics.requests.inc({ role, destination: DESTINATIONS[role], outcome });
    const ms = clock.monotonic() - started;
    metrics.duration.observe({ role }, ms / 1000);
    if (role === "tokens") return;
    const { use, bytesIn, bytesOut } = exchange;
    this.#parts.deps.audit.record({ ...use, role, bytesIn, bytesOut, ms });
  }

  async #serve(exchange: Exchange, route: Route): Promise<Outcome> {
    try {
      checkOrigin(exchange, this.authorities);
      return await this.#dispatch(exchange, route);
    } catch (error) {
      const outcome = exchange.fail(error);
      if (outcome !== "aborted") {
        this.#parts.deps.logger.warn(
          { role: route.role, outcome, code: codeOf(error), err: describeError(error) },
          "request not served",
        );
        answerError(exchange, route.role, error);
      }
      return outcome;
    }
  }

  async #dispatch(exchange: Exchange, route: Route): Promise<Outcome> {
    const { tokens, issued, memory, model, mcp } = this.#parts;
    if (route.role === "tokens") {
      const body = parseJsonText(await exchange.text(SIZES.tokensRequest), MAX_JSON_DEPTH);
      const parsed = tokensRequest.safeParse(body);
      if (!parsed.success) throw new AppError("INPUT_INVALID", "not a request for tokens");
      exchange.sendJson(200, await issued.get(parsed.data));
      return "ok";
    }
    const authorization = exchange.header("authorization");
    const claims = await tokens.verify(authorization);
    const session = { id: claims.sub, token: new Secret(authorization?.slice(7) ?? "") };
    const caller = { claims, session };
    exchange.memory = memory.open(claims.sub);
    Object.assign(exchange.use, { tenant: claims.ten, session: claims.sub, epoch: claims.epoch });
    let leave: () => void;
    try {
      leave = this.#enter(exchange, claims.sub, claims.ten);
    } catch (error) {
      if (route.role === "mcp") return await mcp.refuse(exchange, caller, route.server, error);
      throw error;
    }
    try {
      if (route.role === "mcp") return await mcp.serve(exchange, caller, route.server);
      await tokens.confirm(claims, false);
      return await model.serve(exchange, caller, route.path);
    } finally {
      leave();
    }
  }

  /** A listening stream lasts as long as its session; it is bounded by one per server instead. */
  #enter(exchange: Exchange, session: string, tenant: string): () => void {
    const { limits, deps } = this.#parts;
    deps.audit.check({ hasEffect: false });
    if (exchange.method !== "GET") return limits.enter(session, tenant);
    limits.count(session);
    return () => {};
  }
}

/** Exact paths only: nothing is decoded or normalised on the way to a decision. */
function routeOf(method: string, path: string): Route | undefined {
  if (path === "/tokens") return method === "POST" ? { role: "tokens" } : undefined;
  const modelPath = Object.hasOwn(MODEL_ROUTES, path) ? MODEL_ROUTES[path] : undefined;
  if (modelPath !== undefined) {
    return method === "POST" ? { role: "model", path: modelPath } : undefined;
  }
  const server = /^\/mcp\/([a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)$/.exec(path)?.[1];
  return server === undefined ? undefined : { role: "mcp", server };
}

/** A browser that was lured to this port names another host or says where it comes from (CVE-2025-66414). */
function checkOrigin(exchange: Exchange, authorities: ReadonlySet<string>): void {
  if (!authorities.has(exchange.header("host") ?? "")) {
    throw new AppError("FORBIDDEN", "the Host header must name the loopback address and port");
  }
  if (exchange.headers.origin !== undefined) {
    throw new AppError("FORBIDDEN", "requests from web pages are not taken");
  }
}

function answerError(exchange: Exchange, role: Role | undefined, error: unknown): void {
  if (exchange.answered) {
    exchange.breakOff();
    return;
  }
  const { status, body } = errorResponse(error);
  const { code, message } = body.error;
  exchange.sendJson(status, role === "model" ? modelErrorBody(status, code, message) : body);
}

function hostOf(baseUrl: string): string {
  const url = new URL(baseUrl);
  return authority(url.protocol, url.hostname, url.port);
}
