/**
 * `KubeClient` against a real API server. `@kubernetes/client-node` reads kubeconfig files and
 * proves who we are (certificates, tokens and their rotation, exec plug-ins); requests are ours, so
 * that each has a deadline, honours `Retry-After` and is counted.
 */
import type { RequestOptions } from "node:https";
import { KubeConfig } from "@kubernetes/client-node";
import type { Clock } from "../runtime/clock.ts";
import { AppError, describeError } from "../runtime/errors.ts";
import type { Logger } from "../runtime/logger.ts";
import type { Rng } from "../runtime/rng.ts";
import { ApiOutage } from "./api-outage.ts";
import type {
  ApplyOptions,
  CallOptions,
  DeleteOptions,
  KubeClient,
  ListOptions,
  ListPage,
  Patch,
  PatchStatusOptions,
  WatchEvent,
  WatchOptions,
  WriteOptions,
} from "./client.ts";
import { isKubeError } from "./errors.ts";
import type { Connection } from "./http-transport.ts";
import { connectionError } from "./kube-status.ts";
import type { RestClientMetrics } from "./metrics.ts";
import {
  apiVersionOf,
  describeObject,
  type KubeObject,
  type ObjectRef,
  type ResourceType,
} from "./objects.ts";
import {
  collectionPath,
  creationPath,
  listQuery,
  objectPath,
  watchQuery,
  withQuery,
} from "./request-path.ts";
import { RestCaller } from "./rest-caller.ts";
import { watchEvents } from "./watch-stream.ts";

/** Where the cluster's address and our identity come from. */
export type KubeConfigSource =
  | { from: "in-cluster" }
  /** `KUBECONFIG`, `~/.kube/config`, or in the cluster, as kubectl. */
  | { from: "default"; context?: string }
  | { from: "file"; path: string; context?: string }
  | { from: "text"; text: string };

export interface LiveClientDeps {
  config: KubeConfigSource;
  /** Program and version: shows in audit logs and as the default field manager. */
  userAgent: string;
  clock: Clock;
  rng: Pick<Rng, "next">;
  metrics: RestClientMetrics;
  /** Tells when the API server cannot be reached, and when it can again. */
  logger: Logger;
}

export class LiveClient implements KubeClient {
  readonly #deps: LiveClientDeps;
  readonly #caller: RestCaller;
  readonly #outage: ApiOutage;
  #config: KubeConfig;

  /** Reads the configuration; throws CONFIG_INVALID when there is none or it names no cluster. */
  constructor(deps: LiveClientDeps) {
    this.#deps = deps;
    this.#config = loadKubeConfig(deps.config);
    this.#outage = new ApiOutage(deps);
    this.#caller = new RestCaller({
      ...deps,
      outage: this.#outage,
      connect: (fresh) => {
        if (fresh) this.#config = loadKubeConfig(deps.config);
        return connectionFrom(this.#config);
      },
    });
  }

  /** The namespace of the configuration's context. */
  get defaultNamespace(): string {
    return this.#config.getContextObject(this.#config.getCurrentContext())?.namespace ?? "default";
  }

  close(): void {
    this.#outage.close();
    this.#caller.close();
  }

  get<T extends KubeObject>(type: ResourceType<T>, ref: ObjectRef, options?: CallOptions) {
    const what = `get ${describeObject(type, ref)}`;
    return this.#caller.json<T>({
      verb: "GET",
      method: "GET",
      path: objectPath(type, ref),
      what,
      options,
    });
  }

  async list<T extends KubeObject>(
    type: ResourceType<T>,
    options: ListOptions = {},
  ): Promise<ListPage<T>> {
    const path = withQuery(collectionPath(type, options.namespace), listQuery(options));
    const what = `list ${type.plural}`;
    const page = await this.#caller.json<WireList<T>>({
      verb: "LIST",
      method: "GET",
      path,
      what,
      options,
    });
    const { resourceVersion = "", continue: continueToken } = page.metadata;
    const apiVersion = apiVersionOf(type);
    const items = (page.items ?? []).map((item) => ({ ...item, apiVersion, kind: type.kind }));
    return { items, resourceVersion, ...(continueToken ? { continueToken } : {}) };
  }

  async *watch<T extends KubeObject>(
    type: ResourceType<T>,
    options: WatchOptions,
  ): AsyncGenerator<WatchEvent<T>> {
    const path = withQuery(collectionPath(type, options.namespace), watchQuery(options));
    const what = `watch ${type.plural}`;
    const call = { verb: "WATCH", method: "GET", path, what, options };
    // Our own end of the stream, besides the caller's.
    const stop = new AbortController();
    const signal = AbortSignal.any([options.signal, stop.signal]);
    const response = await this.#caller.stream(call, signal);
    try {
      yield* watchEvents<T>(response, { what, silenceMs: options.silenceMs }, this.#deps.clock);
    } catch (error) {
      options.signal.throwIfAborted();
      throw isKubeError(error) ? error : connectionError(what, error, false);
    } finally {
      stop.abort();
      response.destroy();
    }
  }

  create<T extends KubeObject>(type: ResourceType<T>, object: T, options: WriteOptions = {}) {
    const path = creationPath(type, object.metadata, options.subresource);
    return this.#caller.json<T>({
      verb: "POST",
      method: "POST",
      path: withQuery(path, writeQuery(options)),
      what: `create ${describeObject(type, object.metadata)}`,
      contentType: "application/json",
      body: object,
      options,
    });
  }

  apply<T extends KubeObject>(type: ResourceType<T>, object: T, options: ApplyOptions) {
    const query = {
      ...writeQuery(options),
      fieldManager: options.fieldManager,
      force: options.force === true ? "true" : undefined,
    };
    return this.#caller.json<T>({
      verb: "APPLY",
      method: "PATCH",
      path: withQuery(objectPath(type, object.metadata, options.subresource), query),
      what: `apply ${describeObject(type, object.metadata)}`,
      contentType: "application/apply-patch+yaml", // JSON is YAML
      body: { ...object, apiVersion: apiVersionOf(type), kind: type.kind },
      options,
    });
  }

  patch<T extends KubeObject>(
    type: ResourceType<T>,
    ref: ObjectRef,
    patch: Patch,
    options: WriteOptions = {},
  ) {
    const kind = patch.kind === "merge" ? "merge-patch" : "json-patch";
    return this.#caller.json<T>({
      verb: "PATCH",
      method: "PATCH",
      path: withQuery(objectPath(type, ref, options.subresource), writeQuery(options)),
      what: `patch ${describeObject(type, ref)}`,
      contentType: `application/${kind}+json`,
      body: patch.body,
      options,
    });
  }

  patchStatus<T extends KubeObject>(
    type: ResourceType<T>,
    ref: ObjectRef,
    status: Record<string, unknown>,
    options: PatchStatusOptions = {},
  ) {
    const { resourceVersion, ...rest } = options;
    const precondition = resourceVersion === undefined ? {} : { metadata: { resourceVersion } };
    const body = { ...precondition, status };
    return this.patch(type, ref, { kind: "merge", body }, { ...rest, subresource: "status" });
  }

  async delete(type: ResourceType, ref: ObjectRef, options: DeleteOptions = {}): Promise<void> {
    const { uid, resourceVersion, propagation = "Background", gracePeriodSeconds } = options;
    await this.#caller.json<unknown>({
      verb: "DELETE",
      method: "DELETE",
      path: objectPath(type, ref),
      what: `delete ${describeObject(type, ref)}`,
      contentType: "application/json",
      body: {
        apiVersion: "v1",
        kind: "DeleteOptions",
        propagationPolicy: propagation,
        gracePeriodSeconds,
        preconditions: { uid, resourceVersion },
      },
      options,
    });
  }
}

interface WireList<T> {
  metadata: { resourceVersion?: string; continue?: string };
  items: T[] | null;
}

function writeQuery(options: WriteOptions): Record<string, string | undefined> {
  return { dryRun: options.dryRun === true ? "All" : undefined };
}

function loadKubeConfig(source: KubeConfigSource): KubeConfig {
  const config = new KubeConfig();
  try {
    if (source.from === "in-cluster") config.loadFromCluster();
    else if (source.from === "file") config.loadFromFile(source.path);
    else if (source.from === "text") config.loadFromString(source.text);
    else config.loadFromDefault();
  } catch (error) {
    throw new AppError("CONFIG_INVALID", `no usable kubeconfig: ${describeError(error)}`);
  }
  if ("context" in source && source.context !== undefined) config.setCurrentContext(source.context);
  // What client-node makes of environment variables that are not there.
  if (config.getCurrentCluster()?.server.endsWith("://undefined:undefined") === true) {
    throw new AppError("CONFIG_INVALID", "this process does not run in a Kubernetes pod");
  }
  if (config.getCurrentCluster() === null) {
    const context = config.getCurrentContext();
    throw new AppError(
      "CONFIG_INVALID",
      context ? `kubeconfig context "${context}" names no cluster` : "no kubeconfig was found",
    );
  }
  return config;
}

/** Our headers and TLS settings, as client-node derives them; it reads token files again itself. */
async function connectionFrom(config: KubeConfig): Promise<Connection> {
  const cluster = config.getCurrentCluster();
  if (cluster === null) throw new AppError("CONFIG_INVALID", "the kubeconfig names no cluster");
  const options: RequestOptions = {};
  await config.applyToHTTPSOptions(options);
  const { ca, cert, key, pfx, passphrase, servername, rejectUnauthorized, headers, auth } = options;
  const tls = { ca, cert, key, pfx, passphrase, servername, rejectUnauthorized };
  const present = Object.entries(tls).filter(([, value]) => value !== undefined);
  const basic = auth ? { Authorization: `Basic ${Buffer.from(auth).toString("base64")}` } : {};
  return {
    server: cluster.server,
    headers: { ...stringHeaders(headers), ...basic },
    tls: Object.fromEntries(present),
    ...(cluster.proxyUrl === undefined ? {} : { agent: options.agent }),
  };
}

function stringHeaders(headers: RequestOptions["headers"]): Record<string, string> {
  return Object.fromEntries(
    Object.entries(headers ?? {}).map(([name, value]) => [name, String(value)]),
  );
}
