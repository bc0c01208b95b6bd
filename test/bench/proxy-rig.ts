import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, open, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:https";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  createSelfSignedCertificate,
  type TlsIdentity,
} from "../../src/operator/issuer/certificate.ts";
import { createIssuer } from "../../src/operator/issuer/issuer.ts";
import { createIssuerServer } from "../../src/operator/issuer/server.ts";
import { ISSUER_TLS_NAME, tokensResponse } from "../../src/protocol/proxy-api.ts";
import type { SessionSnapshot } from "../../src/protocol/snapshot.ts";
import { generateSigningKey } from "../../src/protocol/tokens.ts";
import { systemClock } from "../../src/runtime/clock.ts";
import type { Lease, SessionRef, SessionStore } from "../../src/sessions/session-log.ts";
import { newRef, newSession } from "../builders/sessions.ts";
import { aSnapshot } from "../builders/snapshot.ts";
import { Cleanups } from "../cleanups.ts";
import { freePort } from "../servers/free-ports.ts";
import { openRedisStore } from "../servers/redis-store.ts";
import { type RedisWithUsers, startRedisWithUsers } from "../servers/redis-users.ts";
import { CORES, startProgram } from "./processes.ts";
import { credentialOf } from "./proxy-protocol.ts";

const POD = "bench-pod";
const NAMESPACE = "drover-system";
/** Renewals would be work that has nothing to do with what is measured. */
const TIMINGS = { ttlMs: 3_600_000, renewMs: 600_000 };

/** How answers come, and how many credentials a session has. */
export interface Scenario {
  kind: "json" | "sse";
  credentials: number;
}

export interface HeldSession {
  ref: SessionRef;
  leaseToken: string;
}

/** The sidecar as it is deployed, with a real Redis, real tokens, and an MCP server beside it. */
export interface ProxyRig {
  proxy: { port: number; pid: number };
  upstream: { port: number; pid: number };
  hold(scenario: Scenario, sessions: number): Promise<HeldSession[]>;
  /** As the harness gets it: signed by the issuer. */
  token(session: HeldSession): Promise<string>;
  stop(): Promise<void>;
}

export async function startProxyRig(): Promise<ProxyRig> {
  const cleanups = new Cleanups();
  const stop = async () => await cleanups.run();
  try {
    const folder = await mkdtemp(join(tmpdir(), "drover-bench-"));
    cleanups.add(async () => await rm(folder, { recursive: true }));
    const redis = await startRedisWithUsers();
    cleanups.add(async () => await redis.stop());
    const stores = {
      operator: await connect(redis, "operator"),
      harness: await connect(redis, "harness"),
    };
    for (const store of Object.values(stores)) cleanups.add(async () => await store.close());
    const upstream = await startUpstream(cleanups);
    const proxy = await startProxy(cleanups, { folder, redis, store: stores.operator, upstream });
    return {
      proxy,
      upstream,
      hold: async (scenario, sessions) => await hold(stores, scenario, sessions, upstream.port),
      token: async (session) => await tokenOf(proxy.port, session),
      stop,
    };
  } catch (error) {
    await stop();
    throw error;
  }
}

async function connect(
  redis: RedisWithUsers,
  process: "operator" | "harness",
): Promise<SessionStore> {
  return await openRedisStore({ ...redis.as(process), timings: TIMINGS });
}

function ended(cleanups: Cleanups, child: ChildProcess): void {
  cleanups.add(async () => {
    if (child.exitCode !== null || child.signalCode !== null) return;
    child.kill("SIGTERM");
    await once(child, "exit");
  });
}

async function startUpstream(cleanups: Cleanups): Promise<{ port: number; pid: number }> {
  const child = startProgram("test/bench/mcp-upstream.ts", {
    core: CORES?.others,
    stdout: "pipe",
  });
  ended(cleanups, child);
  if (child.stdout === null) throw new Error("the MCP server has no output");
  const [line] = (await once(child.stdout, "data")) as [Buffer];
  return { port: Number(line.toString()), pid: child.pid ?? 0 };
}

async function startProxy(
  cleanups: Cleanups,
  given: { folder: string; redis: RedisWithUsers; store: SessionStore; upstream: { port: number } },
): Promise<{ port: number; pid: number }> {
  const { folder, redis, store, upstream } = given;
  const file = async (name: string, text: string) => {
    await writeFile(join(folder, name), text, { mode: 0o600 });
    return join(folder, name);
  };
  const issuerTls = createSelfSignedCertificate(ISSUER_TLS_NAME, systemClock.now());
  const apiTls = createSelfSignedCertificate("localhost", systemClock.now());
  const [port, healthPort] = [await freePort(), await freePort()];
  const output = await open(join(folder, "audit.log"), "w");
  cleanups.add(async () => await output.close());
  const { username = "", password } = redis.as("proxy");
  const child = startProgram("src/cmd/proxy.ts", {
    core: CORES?.measured,
    stdout: output.fd,
    env: {
      DROVER_PROXY_PORT: String(port),
      DROVER_PROXY_HEALTH_PORT: String(healthPort),
      DROVER_PROXY_HEALTH_HOST: "127.0.0.1",
      DROVER_POD_UID: POD,
      DROVER_ISSUER_URL: await startIssuer(cleanups, issuerTls, store),
      DROVER_ISSUER_CERTIFICATE: issuerTls.cert,
      DROVER_ISSUER_TOKEN_FILE: await file("issuer-token", "service-account-token"),
      DROVER_REDIS_URL: redis.url,
      DROVER_REDIS_USERNAME: username,
      DROVER_REDIS_PASSWORD_FILE: await file("redis-password", password?.reveal() ?? ""),
      DROVER_IN_CLUSTER_SERVERS: `127.0.0.1:${upstream.port}`,
      KUBERNETES_SERVICE_HOST: "localhost",
      KUBERNETES_SERVICE_PORT: String(await startSecretsApi(cleanups, apiTls)),
      DROVER_API_TOKEN_FILE: await file("api-token", "service-account-token"),
      DROVER_API_CA_FILE: await file("ca.crt", apiTls.cert),
      DROVER_PROXY_REQUESTS_PER_MINUTE: "1000000",
    },
  });
  ended(cleanups, child);
  await untilReady(`http://127.0.0.1:${healthPort}/readyz`, child);
  return { port, pid: child.pid ?? 0 };
}

async function startIssuer(
  cleanups: Cleanups,
  tls: TlsIdentity,
  { ports }: SessionStore,
): Promise<string> {
  const issuer = createIssuer({
    key: await generateSigningKey("bench"),
    namespace: NAMESPACE,
    leases: ports,
    snapshots: ports,
    bindings: ports,
    clock: systemClock,
  });
  const caller = { podUid: POD, serviceAccount: `${NAMESPACE}/drover-pool-default` };
  const reviewer = { review: async () => caller };
  const server = createIssuerServer({
    issuer,
    checkpoints: { keep: async () => {} },
    reviewer,
    tls,
    onIssued: () => {},
  });
  cleanups.add(async () => await server.close());
  return await server.listen({ host: "127.0.0.1", port: 0 });
}

/** Secrets as the Kubernetes API gives them: `credential-<n>` holds the credential of that number. */
async function startSecretsApi(cleanups: Cleanups, tls: TlsIdentity): Promise<number> {
  const server = createServer({ key: tls.key, cert: tls.cert }, (request, response) => {
    const index = Number(/credential-(\d+)$/.exec(request.url ?? "")?.[1]);
    const token = Buffer.from(credentialOf(index)).toString("base64");
    response.setHeader("content-type", "application/json");
    response.end(JSON.stringify({ metadata: { resourceVersion: "1" }, data: { token } }));
  });
  server.listen(0, "localhost");
  await once(server, "listening");
  cleanups.add(async () => {
    server.closeAllConnections();
    server.close();
  });
  return (server.address() as AddressInfo).port;
}

async function untilReady(url: string, child: ChildProcess): Promise<void> {
  for (let tries = 0; tries < 600; tries += 1) {
    const answer = await fetch(url).catch(() => undefined);
    if (answer?.status === 200) return;
    if (child.exitCode !== null) break;
    await systemClock.sleep(50);
  }
  throw new Error("the proxy does not become ready");
}

async function hold(
  stores: { operator: SessionStore; harness: SessionStore },
  scenario: Scenario,
  sessions: number,
  upstreamPort: number,
): Promise<HeldSession[]> {
  for (let made = 0; made < sessions; made += 1) {
    const ref = newRef();
    const snapshot = snapshotOf(ref, scenario, upstreamPort);
    await stores.operator.log.createSession(newSession(ref, { snapshot }));
  }
  const held: Lease[] = [];
  const stop = new AbortController();
  const capacity = () => sessions - held.length;
  for await (const lease of stores.harness.queue(POD).claim({ capacity, signal: stop.signal })) {
    held.push(lease);
    if (held.length === sessions) stop.abort();
  }
  return held.map(({ ref, token }) => ({ ref, leaseToken: token }));
}

function snapshotOf(
  ref: SessionRef,
  { kind, credentials }: Scenario,
  port: number,
): SessionSnapshot {
  const base = aSnapshot({ sessionId: ref.id, tenant: ref.tenant });
  const servers = Array.from({ length: credentials }, (_, index) => ({
    name: `server-${index}`,
    url: `http://127.0.0.1:${port}/${kind}/${index}`,
  }));
  return {
    ...base,
    agent: {
      ...base.agent,
      mcpServers: servers,
      tools: servers.map(({ name }) => ({
        type: "mcp_toolset" as const,
        mcpServerName: name,
        defaultConfig: { permissionPolicy: "always_allow" as const },
      })),
    },
    vaults: [
      {
        name: "main",
        uid: "vault-uid",
        entries: servers.map(({ name, url }, index) => ({
          name,
          mcpServerUrl: url,
          secretRef: { name: `credential-${index}`, key: "token" },
          header: "Authorization",
          scheme: "Bearer",
        })),
      },
    ],
  };
}

async function tokenOf(port: number, { ref, leaseToken }: HeldSession): Promise<string> {
  const answer = await fetch(`http://127.0.0.1:${port}/tokens`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ sessionId: ref.id, tenant: ref.tenant, leaseToken }),
  });
  if (answer.status !== 200) throw new Error(`no token: ${answer.status} ${await answer.text()}`);
  return tokensResponse.parse(await answer.json()).sessionToken;
}
