import { createHash } from "node:crypto";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import {
  createServer,
  type IncomingHttpHeaders,
  type IncomingMessage,
  type ServerResponse,
} from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type {
  Credential,
  CredentialRequest,
  CredentialSource,
} from "../../../src/credentials/credential-source.ts";
import { credentialValue, secretRefOf } from "../../../src/credentials/credential-value.ts";
import type { VaultTokenPort } from "../../../src/credentials/vault/session-reader.ts";
import { createIssuer } from "../../../src/operator/issuer/issuer.ts";
import { tokensResponse } from "../../../src/protocol/proxy-api.ts";
import type { AuditCheckpoint, ToolPinStore } from "../../../src/protocol/proxy-ports.ts";
import type {
  LeaseReader,
  LeaseState,
  SnapshotReader,
} from "../../../src/protocol/session-ports.ts";
import type { SessionSnapshot } from "../../../src/protocol/snapshot.ts";
import { generateSigningKey, type SigningKey } from "../../../src/protocol/tokens.ts";
import { AuditLog } from "../../../src/proxy/audit.ts";
import { MemoryToolPins } from "../../../src/proxy/memory-tool-pins.ts";
import { createProxyMetrics } from "../../../src/proxy/metrics.ts";
import { FileKeyReader, type PoolKeyReader } from "../../../src/proxy/model-key.ts";
import { createProxyServer, type ProxyServer } from "../../../src/proxy/server.ts";
import { type Clock, systemClock } from "../../../src/runtime/clock.ts";
import { AppError } from "../../../src/runtime/errors.ts";
import { createLogger } from "../../../src/runtime/logger.ts";
import { Registry } from "../../../src/runtime/metrics.ts";
import { aSnapshot } from "../../builders/snapshot.ts";
import type { Cleanups } from "../../cleanups.ts";

export interface Received {
  method: string;
  url: string;
  headers: IncomingHttpHeaders;
  rawHeaders: string[];
  body: string;
}

export interface Upstream {
  port: number;
  authority: string;
  url: string;
  received: Received[];
  /** Set when a client left before its answer was complete. */
  aborted: number;
  /** How many were opened, also by those who never asked anything. */
  connections: number;
  dropConnections(): void;
}

/** A real HTTP server that records what it got; `handle` writes the answer. */
export async function startUpstream(
  cleanups: Cleanups,
  handle: (received: Received, response: ServerResponse, request: IncomingMessage) => void,
  options: { readBody?: boolean } = {},
): Promise<Upstream> {
  const upstream: Upstream = {
    port: 0,
    authority: "",
    url: "",
    received: [],
    aborted: 0,
    connections: 0,
    dropConnections: () => server.closeAllConnections(),
  };
  const server = createServer((request, response) => {
    response.once("close", () => {
      if (!response.writableFinished) upstream.aborted += 1;
    });
    const received: Received = {
      method: request.method ?? "",
      url: request.url ?? "",
      headers: request.headers,
      rawHeaders: request.rawHeaders,
      body: "",
    };
    upstream.received.push(received);
    if (options.readBody === false) {
      handle(received, response, request);
      return;
    }
    request.on("data", (chunk: Buffer) => {
      received.body += chunk.toString("utf8");
    });
    request.on("end", () => handle(received, response, request));
  });
  server.on("connection", () => {
    upstream.connections += 1;
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  cleanups.add(async () => {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  });
  upstream.port = (server.address() as AddressInfo).port;
  upstream.authority = `127.0.0.1:${upstream.port}`;
  upstream.url = `http://${upstream.authority}`;
  return upstream;
}

export interface RigOptions {
  modelBaseUrl?: string;
  modelApiKey?: string;
  /** In place of the file with `modelApiKey`. */
  poolKey?: PoolKeyReader;
  inClusterServers?: string[];
  agent?: Partial<SessionSnapshot["agent"]>;
  vaults?: SessionSnapshot["vaults"];
  /** namespace → secret → key → value. */
  secrets?: Record<string, Record<string, Record<string, string>>>;
  /** In place of the file with `secrets`; `tokens` is the issuer, asked as this pod. */
  credentials?: (tokens: VaultTokenPort) => CredentialSource;
  maxInFlight?: number;
  requestsPerMinute?: number;
  /** Shared between proxies, as Redis is. */
  toolPins?: ToolPinStore;
  /** In place of the maps; with `key` and `podUid`, for several sidecars of one install. */
  store?: LeaseReader & SnapshotReader;
  key?: SigningKey;
  podUid?: string;
  /** The proxy's own, in place of the system's. */
  clock?: Clock;
}

/** The system's clock, which a test can set forward: what is held for seconds is then old. */
export class SkippingClock implements Clock {
  #skippedMs = 0;

  now(): number {
    return systemClock.now();
  }

  monotonic(): number {
    return systemClock.monotonic() + this.#skippedMs;
  }

  async sleep(ms: number, signal?: AbortSignal): Promise<void> {
    await systemClock.sleep(ms, signal);
  }

  timer(ms: number, f: () => void): () => void {
    return systemClock.timer(ms, f);
  }

  skip(ms: number): void {
    this.#skippedMs += ms;
  }
}

export const POD = "pod-1";
export const SESSION = aSnapshot().sessionId;
export const TENANT = "team-a";

/** namespace → secret → key → value in a JSON file, read at each call, so that a test can change it. */
class FileSource implements CredentialSource {
  readonly #path: string;

  constructor(path: string) {
    this.#path = path;
  }

  async read(request: CredentialRequest): Promise<Credential> {
    const secrets = JSON.parse(await readFile(this.#path, "utf8")) as NonNullable<
      RigOptions["secrets"]
    >;
    const { name, key } = secretRefOf(request);
    const text = secrets[request.tenant]?.[name]?.[key];
    if (text === undefined) throw new AppError("CREDENTIAL_NOT_FOUND", "it is not in the file");
    return {
      value: credentialValue(request, text),
      version: createHash("sha256").update(text).digest("hex"),
    };
  }
}

/** A running proxy with its issuer in process and a session store made of maps. */
export class Rig {
  readonly url: string;
  readonly port: number;
  readonly proxy: ProxyServer;
  readonly key: SigningKey;
  readonly leases: Map<string, LeaseState>;
  readonly snapshots: Map<string, SessionSnapshot>;
  readonly registry: Registry;
  readonly logLines: string[];
  readonly modelKeyFile: string;
  readonly credentialsFile: string;
  readonly auditLines: string[] = [];
  readonly checkpoints: AuditCheckpoint[] = [];
  /** Makes the lease store fail. */
  storeDown = false;
  /** Makes the store of pinned tools fail. */
  pinsDown = false;
  /** Makes the audit's sink fail. */
  auditDown = false;
  readonly #pins: ToolPinStore;
  leaseReads = 0;

  static async start(cleanups: Cleanups, options: RigOptions = {}): Promise<Rig> {
    const directory = await mkdtemp(join(tmpdir(), "drover-proxy-"));
    cleanups.add(async () => await rm(directory, { recursive: true }));
    const modelKeyFile = join(directory, "model-key");
    const credentialsFile = join(directory, "credentials.json");
    await writeFile(modelKeyFile, options.modelApiKey ?? "");
    await writeFile(credentialsFile, JSON.stringify(options.secrets ?? {}), { mode: 0o600 });
    const key = options.key ?? (await generateSigningKey("key-1"));
    const rig = new Rig({ key, modelKeyFile, credentialsFile, options });
    await rig.proxy.loadKeys();
    (rig as { port: number }).port = await rig.proxy.listen(0);
    (rig as { url: string }).url = `http://127.0.0.1:${rig.port}`;
    cleanups.add(async () => await rig.proxy.close());
    return rig;
  }

  private constructor(given: {
    key: SigningKey;
    modelKeyFile: string;
    credentialsFile: string;
    options: RigOptions;
  }) {
    const { key, options } = given;
    this.#pins = options.toolPins ?? new MemoryToolPins();
    this.url = "";
    this.port = 0;
    this.key = key;
    this.modelKeyFile = given.modelKeyFile;
    this.credentialsFile = given.credentialsFile;
    this.registry = new Registry();
    this.logLines = [];
    const base = aSnapshot();
    this.snapshots = new Map([
      [
        SESSION,
        aSnapshot({ agent: { ...base.agent, ...options.agent }, vaults: options.vaults ?? [] }),
      ],
    ]);
    this.leases = new Map([
      [SESSION, { token: "lease-1", epoch: 1, owner: POD, terminated: false }],
    ]);
    const leases = options.store ?? {
      readLease: async (_tenant: string, id: string) => await this.#lease(id),
    };
    const snapshots = options.store ?? {
      readSnapshot: async (_tenant: string, id: string) => this.snapshots.get(id) ?? null,
    };
    const podUid = options.podUid ?? POD;
    const issuer = createIssuer({
      key,
      namespace: "drover-system",
      leases,
      snapshots,
      bindings: { readBinding: async () => null },
      clock: systemClock,
    });
    const logger = createLogger({
      level: "debug",
      process: "proxy",
      destination: { write: (line) => this.logLines.push(line) },
    });
    const metrics = createProxyMetrics(this.registry);
    const caller = { podUid, serviceAccount: "drover-system/drover-pool-default" };
    this.proxy = createProxyServer({
      issuer: {
        issue: async (request) => await issuer.issue(request, caller),
        keys: async () => await issuer.keys(),
      },
      leases,
      snapshots,
      credentials:
        options.credentials?.({
          vaultToken: async (request) => await issuer.vaultToken(request, caller),
        }) ?? new FileSource(given.credentialsFile),
      onCredentialRead: () => {},
      podUid,
      model: {
        baseUrl: options.modelBaseUrl ?? "https://model.invalid",
        poolKey:
          options.poolKey ??
          (options.modelApiKey === undefined
            ? undefined
            : new FileKeyReader({ path: given.modelKeyFile })),
      },
      inClusterServers: options.inClusterServers ?? [],
      maxInFlight: options.maxInFlight ?? 256,
      requestsPerMinute: options.requestsPerMinute ?? 600,
      audit: new AuditLog({
        sink: {
          write: (line) => {
            if (this.auditDown) throw new Error("ENOSPC");
            this.auditLines.push(line);
          },
        },
        checkpoints: {
          keepCheckpoint: async (checkpoint) => {
            this.checkpoints.push(checkpoint);
          },
        },
        process: "proxy",
        podUid: POD,
        clock: systemClock,
        logger,
        metrics,
      }),
      toolPins: {
        readPins: async (at) => await this.#pinStore().readPins(at),
        keepPins: async (at, pins) => await this.#pinStore().keepPins(at, pins),
      },
      clock: options.clock ?? systemClock,
      logger,
      metrics,
    });
  }

  #pinStore(): ToolPinStore {
    if (this.pinsDown) throw new AppError("UNAVAILABLE", "the store does not answer");
    return this.#pins;
  }

  async #lease(id: string): Promise<LeaseState | null> {
    this.leaseReads += 1;
    if (this.storeDown) throw new AppError("UNAVAILABLE", "the store does not answer");
    return this.leases.get(id) ?? null;
  }

  /** The harness's own way to a session token. */
  async token(sessionId = SESSION, leaseToken = "lease-1"): Promise<string> {
    const answer = await fetch(`${this.url}/tokens`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ sessionId, tenant: TENANT, leaseToken }),
    });
    if (answer.status !== 200) throw new Error(`no token: ${answer.status} ${await answer.text()}`);
    return tokensResponse.parse(await answer.json()).sessionToken;
  }

  async post(path: string, body: unknown, headers: Record<string, string> = {}): Promise<Response> {
    return await fetch(`${this.url}${path}`, {
      method: "POST",
      headers: {
        "content-type": "application/json",
        authorization: `Bearer ${await this.token()}`,
        ...headers,
      },
      body: typeof body === "string" ? body : JSON.stringify(body),
    });
  }
}

/** Everything a harness can see of an answer. */
export async function everythingOf(response: Response): Promise<string> {
  const headers = [...response.headers].map(([name, value]) => `${name}: ${value}`).join("\n");
  return `${response.status} ${response.statusText}\n${headers}\n\n${await response.text()}`;
}
