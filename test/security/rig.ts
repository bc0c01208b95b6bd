/**
 * The whole credential plane as real processes on loopback: Redis with a user for each process, Vault,
 * issuer, sidecar, edge, harness and sandbox daemons, before a scripted model, MCP servers and a git
 * host that record what they get. Issuer and operator are this process.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseEvent } from "../../src/harness/stored-events.ts";
import { createSelfSignedCertificate } from "../../src/operator/issuer/certificate.ts";
import { Checkpoints } from "../../src/operator/issuer/checkpoints.ts";
import { createIssuer } from "../../src/operator/issuer/issuer.ts";
import { createIssuerServer } from "../../src/operator/issuer/server.ts";
import { ISSUER_TLS_NAME } from "../../src/protocol/proxy-api.ts";
import type { SessionEvent } from "../../src/protocol/session-event.ts";
import type { SessionSnapshot } from "../../src/protocol/snapshot.ts";
import { generateSigningKey, type SigningKey } from "../../src/protocol/tokens.ts";
import { systemClock } from "../../src/runtime/clock.ts";
import { AppError } from "../../src/runtime/errors.ts";
import { silentLogger } from "../../src/runtime/logger.ts";
import {
  createRedisSessionPorts,
  type RedisSessionPorts,
} from "../../src/sessions/redis/redis-session-store.ts";
import type { RedisProcess } from "../../src/sessions/redis/users.ts";
import type { SessionRef, SessionStore } from "../../src/sessions/session-log.ts";
import { message, TEST_POOL } from "../builders/sessions.ts";
import type { Cleanups } from "../cleanups.ts";
import { external } from "../integration/harness-bed.ts";
import { freePort } from "../servers/free-ports.ts";
import { openRedisStore } from "../servers/redis-store.ts";
import { type RedisWithUsers, startRedisWithUsers } from "../servers/redis-users.ts";
import { startVault, type VaultServer } from "../servers/vault-server.ts";

const NAMESPACE = "drover-system";
const HARNESS_POD = "harness-pod";
const CALLERS: Record<string, { podUid: string; serviceAccount: string }> = {
  "sidecar-token": { podUid: HARNESS_POD, serviceAccount: `${NAMESPACE}/drover-pool-default` },
  "edge-token": { podUid: "edge-pod", serviceAccount: `${NAMESPACE}/drover-edge` },
};

/** One of our processes, and all that it has written. */
export interface Running {
  name: string;
  pid: number;
  output: string;
  exited: Promise<unknown>;
  child: ChildProcess;
}

export interface CredentialRigOptions {
  modelUrl: string;
  /** Of the pool; a session's own wins. */
  poolKey: string;
  /** `host:port` that the sidecar and the edge may reach although it is loopback. */
  reachable: readonly string[];
}

export class CredentialRig {
  readonly cleanups: Cleanups;
  readonly redis: RedisWithUsers;
  readonly vault: VaultServer;
  readonly store: SessionStore;
  readonly folder: string;
  readonly sidecarPort: number;
  readonly processes: Running[] = [];
  readonly #key: SigningKey;
  /** The operator's user may not read what was said. */
  readonly #reader: SessionStore["log"];
  readonly #records: RedisSessionPorts;
  readonly #stop = new AbortController();
  #sandboxes = 0;

  /** Redis, Vault and what the operator does; `startPlane` starts the processes that serve sessions. */
  static async start(cleanups: Cleanups): Promise<CredentialRig> {
    const folder = await mkdtemp(join(tmpdir(), "drover-credential-rig-"));
    cleanups.add(async () => await rm(folder, { recursive: true, force: true }));
    const key = await generateSigningKey("key-1");
    const redis = await startRedisWithUsers();
    cleanups.add(async () => await redis.stop());
    const vault = await startVault();
    cleanups.add(async () => await vault.stop());
    await vault.setUpSessions({ keys: [key.publicJwk] });
    const connect = async (user: RedisProcess) => {
      const store = await openRedisStore({ ...redis.as(user) });
      cleanups.add(async () => await store.close());
      return store;
    };
    const store = await connect("operator");
    const reader = (await connect("harness")).log;
    const records = createRedisSessionPorts({ ...redis.as("operator"), logger: silentLogger });
    cleanups.add(async () => records.close());
    const sidecarPort = await freePort();
    const servers = { redis, vault, store, reader, records };
    return new CredentialRig({ cleanups, folder, key, ...servers, sidecarPort });
  }

  private constructor(parts: {
    cleanups: Cleanups;
    folder: string;
    key: SigningKey;
    redis: RedisWithUsers;
    vault: VaultServer;
    store: SessionStore;
    reader: SessionStore["log"];
    records: RedisSessionPorts;
    sidecarPort: number;
  }) {
    this.cleanups = parts.cleanups;
    this.folder = parts.folder;
    this.#key = parts.key;
    this.redis = parts.redis;
    this.vault = parts.vault;
    this.store = parts.store;
    this.#reader = parts.reader;
    this.#records = parts.records;
    this.sidecarPort = parts.sidecarPort;
  }

  /** Where sandboxes of this rig keep their files. */
  get sandboxes(): string {
    return join(this.folder, "sandboxes");
  }

  process(name: string): Running {
    const found = this.processes.find((running) => running.name === name);
    if (found === undefined) throw new Error(`there is no process ${name}`);
    return found;
  }

  /** Issuer, sidecar, edge, harness, and an operator that answers requests for sandboxes. */
  async startPlane(options: CredentialRigOptions): Promise<void> {
    const common = await this.#common(options);
    const edgePort = await freePort();
    await Promise.all([
      this.#startServer("proxy", {
        ...common,
        ...this.#redisOf("proxy"),
        DROVER_POD_UID: HARNESS_POD,
        DROVER_PROXY_PORT: String(this.sidecarPort),
        DROVER_ISSUER_TOKEN_FILE: await this.#file("sidecar-token", "sidecar-token"),
        DROVER_MODEL_BASE_URL: options.modelUrl,
        DROVER_MODEL_API_KEY_FILE: await this.#file("pool-key", options.poolKey),
      }),
      this.#startServer("edge", {
        ...common,
        ...this.#redisOf("edge"),
        DROVER_POD_UID: "edge-pod",
        DROVER_EDGE_HOST: "127.0.0.1",
        DROVER_EDGE_PORT: String(edgePort),
        DROVER_ISSUER_TOKEN_FILE: await this.#file("edge-token", "edge-token"),
      }),
    ]);
    this.#spawn("harness", {
      ...this.#redisOf("harness"),
      DROVER_LOG_LEVEL: "debug",
      DROVER_POOL_CODE: TEST_POOL.code,
      DROVER_POOL_PARTITIONS: String(TEST_POOL.partitions),
      DROVER_WORKER_ID: HARNESS_POD,
      DROVER_PROXY_URL: `http://127.0.0.1:${this.sidecarPort}`,
      DROVER_EDGE_URL: `http://127.0.0.1:${edgePort}`,
      DROVER_HEALTH_HOST: "127.0.0.1",
      DROVER_HEALTH_PORT: "0",
      // A busy machine must not look like a lost harness.
      DROVER_LEASE_TTL_MS: "10000",
    });
    const operator = this.#provide();
    this.cleanups.add(async () => {
      this.#stop.abort();
      await operator;
    });
  }

  async createSession(ref: SessionRef, snapshot: SessionSnapshot, text: string): Promise<void> {
    const events = [message(text)];
    await this.store.log.createSession({ ...ref, snapshot, events, source: "manifest" });
  }

  async events(ref: SessionRef): Promise<SessionEvent[]> {
    const events: SessionEvent[] = [];
    for await (const stored of this.#reader.getEvents(ref)) {
      const event = parseEvent(stored);
      if (event !== undefined) events.push(event);
    }
    return events;
  }

  /** Metrics of sidecar and edge. */
  async metrics(): Promise<string> {
    const texts = this.#healthPorts.map(async (port) => {
      const answer = await fetch(`http://127.0.0.1:${port}/metrics`);
      return await answer.text();
    });
    return (await Promise.all(texts)).join("\n");
  }

  readonly #healthPorts: number[] = [];

  async #common({ reachable }: CredentialRigOptions): Promise<Record<string, string>> {
    const tls = createSelfSignedCertificate(ISSUER_TLS_NAME, Date.now());
    const server = createIssuerServer({
      issuer: createIssuer({
        key: this.#key,
        namespace: NAMESPACE,
        leases: this.store.ports,
        snapshots: this.store.ports,
        bindings: this.store.ports,
        clock: systemClock,
      }),
      checkpoints: new Checkpoints({
        key: this.#key,
        namespace: NAMESPACE,
        store: this.#records,
        clock: systemClock,
      }),
      // In a cluster the API server says whose token it is.
      reviewer: {
        review: async (token) => {
          const caller = CALLERS[token];
          if (caller === undefined) throw new AppError("UNAUTHENTICATED", "no such token");
          return caller;
        },
      },
      tls,
      onIssued: () => {},
    });
    const issuerUrl = await server.listen({ host: "127.0.0.1", port: 0 });
    this.cleanups.add(async () => await server.close());
    return {
      DROVER_LOG_LEVEL: "debug",
      DROVER_ISSUER_URL: issuerUrl,
      DROVER_ISSUER_CERTIFICATE_FILE: await this.#file("issuer.crt", tls.cert),
      DROVER_API_CA_FILE: await this.#file("api.crt", tls.cert),
      DROVER_VAULT_ADDRESS: this.vault.address,
      DROVER_VAULT_CA_FILE: this.vault.caFile,
      DROVER_IN_CLUSTER_SERVERS: reachable.join(","),
    };
  }

  #redisOf(user: RedisProcess): Record<string, string> {
    return {
      DROVER_REDIS_URL: this.redis.url,
      DROVER_REDIS_USERNAME: user,
      DROVER_REDIS_PASSWORD: user,
    };
  }

  async #file(name: string, text: string): Promise<string> {
    const path = join(this.folder, name);
    await writeFile(path, text, { mode: 0o600 });
    return path;
  }

  async #startServer(name: "proxy" | "edge", env: Record<string, string>): Promise<void> {
    const health = await freePort();
    this.#healthPorts.push(health);
    const running = this.#spawn(name, {
      ...env,
      DROVER_PROXY_HEALTH_HOST: "127.0.0.1",
      DROVER_PROXY_HEALTH_PORT: String(health),
    });
    const deadline = Date.now() + 30_000;
    for (;;) {
      const answer = await fetch(`http://127.0.0.1:${health}/readyz`).catch(() => undefined);
      if (answer?.status === 200) return;
      if (Date.now() > deadline || running.child.exitCode !== null) {
        throw new Error(`${name} does not start: ${running.output}`);
      }
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }

  #spawn(name: string, env: Record<string, string>): Running {
    const [command = name] = name.split(" ");
    const child = spawn(process.execPath, [`src/cmd/${command}.ts`], {
      env: { PATH: process.env["PATH"] ?? "", ...env },
      stdio: ["pipe", "pipe", "pipe"],
    });
    const exited = once(child, "exit");
    const running: Running = { name, pid: child.pid ?? 0, output: "", exited, child };
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding("utf8").on("data", (text: string) => {
        running.output += text;
      });
    }
    this.processes.push(running);
    this.cleanups.add(async () => {
      // A sandbox must get the time to end what it started.
      child.kill(command === "sandbox" ? "SIGTERM" : "SIGKILL");
      await exited;
    });
    return running;
  }

  async #provide(): Promise<void> {
    const { operator } = this.store;
    for await (const request of operator.requests(this.#stop.signal)) {
      const { ref, hand, generation, requestId, kind } = request;
      if (kind === "provision") {
        const sandbox = await this.#startSandbox();
        await operator.bindSandbox(sandbox.id, {
          sessionId: ref.id,
          tenant: ref.tenant,
          hand,
          generation,
          ip: "127.0.0.1",
        });
        const { id: sandboxId, address } = sandbox;
        const event = external("sandbox.provisioned", { hand, generation, sandboxId, address });
        await operator.emitEvents(ref, [event], { idempotencyKey: requestId });
      }
      await operator.answered(request);
    }
  }

  async #startSandbox(): Promise<{ id: string; address: string }> {
    this.#sandboxes += 1;
    const id = `sbx-${process.pid}-${this.#sandboxes}`;
    const folder = join(this.sandboxes, id);
    const running = this.#spawn(`sandbox ${id}`, {
      DROVER_PUBLIC_KEYS: JSON.stringify({ keys: [this.#key.publicJwk] }),
      DROVER_SANDBOX_ID: id,
      DROVER_SANDBOX_HOST: "127.0.0.1",
      DROVER_SANDBOX_PORT: "0",
      DROVER_WORKSPACE: join(folder, "workspace"),
      DROVER_JOURNAL_DIR: join(folder, "journal"),
      DROVER_PARENT_PIPE: "true",
    });
    const deadline = Date.now() + 30_000;
    for (;;) {
      const port = /^\{"listening":(\d+)\}$/m.exec(running.output)?.[1];
      if (port !== undefined) return { id, address: `127.0.0.1:${port}` };
      if (Date.now() > deadline) throw new Error(`the daemon does not start: ${running.output}`);
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }
}
