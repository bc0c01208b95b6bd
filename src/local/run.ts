import type { EncryptedFile } from "../credentials/local-file/encrypted-file.ts";
import { LocalFileSource } from "../credentials/local-file/local-file-source.ts";
import { AnthropicModel } from "../harness/anthropic-model.ts";
import { SidecarMcpHands } from "../harness/mcp-hands.ts";
import { createHarnessMetrics } from "../harness/metrics.ts";
import { patientFetch } from "../harness/patient-fetch.ts";
import { SidecarTokens } from "../harness/tokens.ts";
import { createWorker } from "../harness/worker.ts";
import { createIssuer } from "../operator/issuer/issuer.ts";
import { poolServiceAccount } from "../operator/names.ts";
import { createSandboxClient } from "../protocol/sandbox-client.ts";
import { generateSigningKey, type Jwks } from "../protocol/tokens.ts";
import { AuditLog } from "../proxy/audit.ts";
import { REQUESTS_PER_MINUTE } from "../proxy/limits.ts";
import { MemoryToolPins } from "../proxy/memory-tool-pins.ts";
import { createProxyMetrics, EDGE_ROLES, SIDECAR_ROLES } from "../proxy/metrics.ts";
import { FileKeyReader } from "../proxy/model-key.ts";
import { createProxyServer } from "../proxy/server.ts";
import type { Clock } from "../runtime/clock.ts";
import { AppError, codeOf, hasCode } from "../runtime/errors.ts";
import { type Runnable, runGroup } from "../runtime/group.ts";
import type { Logger } from "../runtime/logger.ts";
import { MCP_CALL_MS } from "../runtime/mcp-settings.ts";
import { createRegistry, type Registry } from "../runtime/metrics.ts";
import { systemMemory } from "../runtime/process-memory.ts";
import type { Rng } from "../runtime/rng.ts";
import { VERSION } from "../runtime/version.ts";
import { parseScripts } from "../scripted-model/script.ts";
import { createScriptedModel } from "../scripted-model/server.ts";
import { openFileSessionStore } from "../sessions/file/file-session-store.ts";
import type { PoolConfig, SessionStore } from "../sessions/session-log.ts";
import { type DataDirectory, openDataDirectory } from "./data-directory.ts";
import { startLocalEdge } from "./edge.ts";
import { packExamples } from "./examples.ts";
import { LOCAL_NAMESPACE, LocalObjects } from "./local-objects.ts";
import { LocalSandboxDriver } from "./sandbox-driver.ts";
import { LocalSession } from "./session.ts";

export interface LocalRunOptions {
  /** Manifests: the kinds of `kubectl apply`. */
  files: readonly string[];
  dataDirectory: string;
  model: {
    /** Endpoint that speaks the Messages API; the scripted model in this process when absent. */
    baseUrl?: string | undefined;
    /** File with the API key for `baseUrl`. */
    apiKeyFile?: string | undefined;
  };
  /** Script files of the scripted model. */
  scripts: readonly { name: string; text: string }[];
  /** Where credentials of MCP servers and repositories are kept. */
  credentials: EncryptedFile;
  /** MCP servers and git hosts that may be plain http or private, as host:port. */
  localServers: readonly string[];
  sandboxCommand: readonly string[];
  /** Folder of the Node that runs Drover, for tools that call `node`. */
  nodeDirectory: string;
  /** Folder of this installation, for the example packages. */
  installation: string;
  print: (line: string) => void;
  clock: Clock;
  rng: Rng;
  logger: Logger;
}

/** Local mode's worker: there is one, and its leases are its own. */
const WORKER_ID = "local";
/** Exit code when a session failed. */
const FAILED = 3;
const POOL = { name: "local", uid: "local", partitions: 1, commit: { mode: "fsync" } } as const;

/**
 * Runs the AgentSessions of some manifests, one after the other, in this process: file log, one
 * worker, proxy, issuer, sandboxes as child processes. A session that an earlier process did not
 * finish goes on where its log ends; one that is finished starts anew. Resolves to the exit code:
 * 0 all ended well, 3 one failed, 5 one waits for somebody, 130 stopped by the signal.
 * Throws INPUT_INVALID for a manifest or a data directory that cannot be written, UNAVAILABLE when
 * the disk fills up, LOG_DIRECTORY_IN_USE for a data directory in use.
 */
export async function runLocal(options: LocalRunOptions, signal: AbortSignal): Promise<number> {
  const data = await usable(options.dataDirectory, () => openDataDirectory(options.dataDirectory));
  // Mistakes in manifests are told before anything starts.
  const objects = await LocalObjects.load(options.files, data);
  if (objects.sessions().length === 0) {
    throw new AppError("INPUT_INVALID", `no AgentSession in ${options.files.join(", ")}`);
  }
  const unwritable = new AbortController();
  const store = await usable(options.dataDirectory, async () => {
    await packExamples(options.installation, data.examplesDirectory);
    const onWriteFailure = (error: AppError) => unwritable.abort(error);
    return openFileSessionStore({ ...options, directory: data.logDirectory, onWriteFailure });
  });
  try {
    const pool = await store.operator.registerPool(POOL);
    store.operator.watchPools([pool]);
    const stop = AbortSignal.any([signal, unwritable.signal]);
    return await runSessions(options, { data, objects, store, pool }, stop);
  } finally {
    await store.close();
    // Whatever else went wrong after that is its consequence.
    unwritable.signal.throwIfAborted();
  }
}

const UNUSABLE: ReadonlySet<string> = new Set(
  "EACCES EPERM EROFS ENOSPC EDQUOT ENOTDIR EEXIST ENOENT".split(" "),
);

/** Throws INPUT_INVALID with words of its own when the data directory cannot be written. */
async function usable<T>(directory: string, open: () => Promise<T>): Promise<T> {
  try {
    return await open();
  } catch (error) {
    const code = codeOf(error) ?? "";
    if (!UNUSABLE.has(code)) throw error;
    throw new AppError(
      "INPUT_INVALID",
      `the data directory ${directory} cannot be written (${code}); choose another with --data-dir, or make room or the right to write there`,
      { cause: error },
    );
  }
}

interface Parts {
  data: DataDirectory;
  objects: LocalObjects;
  store: SessionStore;
  pool: PoolConfig;
}

async function runSessions(
  options: LocalRunOptions,
  parts: Parts,
  signal: AbortSignal,
): Promise<number> {
  const { clock, rng, logger } = options;
  const { data, store } = parts;
  const registry = createRegistry("local", VERSION);
  const services = await startServices(options, parts, registry);
  const driver = new LocalSandboxDriver({
    operator: store.operator,
    data,
    sandboxCommand: options.sandboxCommand,
    nodeDirectory: options.nodeDirectory,
    publicKeys: services.publicKeys,
    clock,
    rng,
    logger,
  });
  const mcpFetch = patientFetch(2 * MCP_CALL_MS);
  const worker = createWorker({
    queue: store.queue(WORKER_ID),
    model: new AnthropicModel({ baseUrl: `${services.proxyUrl}/model`, clock, fetch }),
    tokens: new SidecarTokens({ sidecarUrl: services.proxyUrl, clock, fetch }),
    sandboxClient: (token) => createSandboxClient({ fetch, clock, logger, token }),
    edge: { url: () => Promise.resolve(services.edgeUrl) },
    mcp: (tokens) =>
      new SidecarMcpHands({
        sidecarUrl: services.proxyUrl,
        tokens,
        clock,
        fetch: mcpFetch,
        logger,
      }),
    memory: systemMemory,
    clock,
    rng,
    logger,
    metrics: createHarnessMetrics(registry),
    options: { graceMs: 2000 },
  });
  const done = new AbortController();
  let code = 0;
  const sessions: Runnable = {
    name: "sessions",
    run: async (stop) => {
      code = await playAll(options, parts, driver, stop);
      done.abort();
    },
  };
  try {
    const sandboxes: Runnable = { name: "sandboxes", run: (stop) => driver.run(stop) };
    await runGroup([sandboxes, worker, sessions], AbortSignal.any([signal, done.signal]), logger);
  } finally {
    await services.close();
  }
  return signal.aborted && !done.signal.aborted ? 130 : code;
}

/** Plays the sessions in order; the worst exit code wins. */
async function playAll(
  options: LocalRunOptions,
  parts: Parts,
  driver: LocalSandboxDriver,
  stop: AbortSignal,
): Promise<number> {
  const { data, store, pool } = parts;
  let worst = 0;
  for (const { metadata } of parts.objects.sessions()) {
    const { name, namespace = LOCAL_NAMESPACE } = metadata;
    const play = (objects: LocalObjects) => {
      const around = objects.around(objects.session(namespace, name), pool);
      return new LocalSession({ ...options, store, driver, around });
    };
    const playOne = async () => {
      let session = play(parts.objects);
      if (await session.isFinished()) {
        await data.nextIncarnation({ kind: "AgentSession", namespace, name });
        await driver.forget(session.ref);
        session = play(await LocalObjects.load(options.files, data));
      }
      return await session.play(stop);
    };
    const code = await playOne().catch((error: unknown) => {
      if (!hasCode(error, "LOG_DAMAGED")) throw error;
      options.print(`error     ${error.message}`);
      return FAILED;
    });
    worst = Math.max(worst, code);
    if (stop.aborted) break;
  }
  return worst;
}

interface Services {
  proxyUrl: string;
  edgeUrl: string;
  publicKeys: Jwks;
  close(): Promise<void>;
}

/** Issuer, proxy, edge and, unless a real endpoint is given, the scripted model. */
async function startServices(
  options: LocalRunOptions,
  { store, pool }: Parts,
  registry: Registry,
): Promise<Services> {
  const { clock, logger } = options;
  const key = await generateSigningKey("local");
  const issuer = createIssuer({
    key,
    namespace: LOCAL_NAMESPACE,
    leases: store.ports,
    snapshots: store.ports,
    bindings: store.ports,
    clock,
  });
  const scripted =
    options.model.baseUrl === undefined
      ? createScriptedModel({
          script: parseScripts(options.scripts),
          clock,
          logger,
          registry: createRegistry("scripted-model", VERSION),
        })
      : undefined;
  const baseUrl =
    options.model.baseUrl ?? (await scripted?.listen({ host: "127.0.0.1", port: 0 })) ?? "";
  const caller = {
    podUid: WORKER_ID,
    serviceAccount: `${LOCAL_NAMESPACE}/${poolServiceAccount(pool.name)}`,
  };
  const path = options.model.apiKeyFile;
  const metrics = createProxyMetrics(registry, [...SIDECAR_ROLES, ...EDGE_ROLES]);
  const credentials = new LocalFileSource({ file: options.credentials });
  const audit = new AuditLog({
    // Whoever could read it here could change it.
    sink: { write: () => {} },
    checkpoints: { keepCheckpoint: async () => {} },
    process: "local",
    podUid: WORKER_ID,
    clock,
    logger,
    metrics,
  });
  const proxy = createProxyServer({
    issuer: { issue: (request) => issuer.issue(request, caller), keys: () => issuer.keys() },
    leases: store.ports,
    snapshots: store.ports,
    credentials,
    onCredentialRead: () => {},
    podUid: WORKER_ID,
    model: { baseUrl, poolKey: path === undefined ? undefined : new FileKeyReader({ path }) },
    inClusterServers: options.localServers,
    maxInFlight: 256,
    requestsPerMinute: REQUESTS_PER_MINUTE,
    audit,
    toolPins: new MemoryToolPins(),
    clock,
    logger,
    metrics,
  });
  const port = await proxy.listen(0);
  await proxy.loadKeys();
  const { localServers } = options;
  const parts = { issuer, store, credentials, localServers, audit, clock, logger, metrics };
  const edge = await startLocalEdge(parts);
  return {
    proxyUrl: `http://127.0.0.1:${port}`,
    edgeUrl: edge.url,
    publicKeys: await issuer.keys(),
    close: async () => {
      await Promise.all([proxy.close(), edge.close()]);
      await scripted?.close();
    },
  };
}
