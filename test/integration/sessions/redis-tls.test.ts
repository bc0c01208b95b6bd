import { type ChildProcess, execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, afterEach, beforeAll, expect, it } from "@jest/globals";
import { Redis } from "ioredis";
import { createSelfSignedCertificate } from "../../../src/operator/issuer/certificate.ts";
import { systemClock } from "../../../src/runtime/clock.ts";
import type { RedisAddress } from "../../../src/sessions/redis/connection.ts";
import { newRef, TEST_POOL } from "../../builders/sessions.ts";
import { freePort } from "../../servers/free-ports.ts";
import { type RedisServer, startRedis } from "../../servers/redis-server.ts";
import { openRedisStore } from "../../servers/redis-store.ts";

/** A Redis whose certificate is signed by an authority that no system knows. */

let folder: string;
let server: RedisServer;
let port: number;
const children: ChildProcess[] = [];

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "drover-redis-tls-"));
  await makeCertificates();
  port = await freePort();
  const settings = {
    "tls-port": `${port}`,
    "tls-auth-clients": "no",
    "tls-key-file": join(folder, "server.key"),
    "tls-cert-file": join(folder, "server.crt"),
    "tls-ca-cert-file": join(folder, "ca.crt"),
  };
  server = await startRedis({
    args: Object.entries(settings).flatMap(([name, value]) => [`--${name}`, value]),
  });
});

afterEach(() => {
  for (const child of children.splice(0)) child.kill("SIGKILL");
});

afterAll(async () => {
  await server?.stop();
  await rm(folder, { recursive: true });
});

async function makeCertificates(): Promise<void> {
  const newCertificate = (name: string, more: string) => {
    const key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
    const command = `req -x509 ${key} -subj /CN=${name} -days 2 -keyout ${name}.key -out ${name}.crt ${more}`;
    return promisify(execFile)("openssl", command.trim().split(" "), { cwd: folder });
  };
  await newCertificate("ca", "");
  const names = "-addext subjectAltName=DNS:localhost,IP:127.0.0.1";
  const leaf = "-addext basicConstraints=critical,CA:FALSE";
  await newCertificate("server", `-CA ca.crt -CAkey ca.key ${leaf} ${names}`);
}

const authority = () => readFile(join(folder, "ca.crt"), "utf8");

const connectTo = (host: string, tls?: RedisAddress["tls"]) =>
  openRedisStore({ url: `rediss://${host}:${port}`, tls });

it.each(["localhost", "127.0.0.1"])("with its authority, %s is connected to", async (host) => {
  const store = await connectTo(host, { ca: await authority() });

  const { tenant, id } = newRef();
  const lease = await store.ports.readLease(tenant, id);
  await store.close();
  expect(lease).toBeNull();
});

it.each([
  { which: "without its authority", tls: undefined },
  {
    which: "with another authority",
    tls: { ca: createSelfSignedCertificate("localhost", systemClock.now()).cert },
  },
])("$which it is refused, and the message says what to give", async ({ tls }) => {
  const refused = connectTo("localhost", tls);

  await expect(refused).rejects.toMatchObject({
    code: "REDIS_UNREACHABLE",
    message: expect.stringMatching(
      new RegExp(
        `^the certificate of Redis at localhost:${port} is not trusted \\(.+\\); give .* DROVER_REDIS_CA_FILE`,
      ),
    ),
  });
});

it("a certificate for another name is refused also with its authority", async () => {
  const refused = connectTo("localhost", { ca: await authority(), servername: "redis.test" });

  await expect(refused).rejects.toMatchObject({
    code: "REDIS_UNREACHABLE",
    message: expect.stringContaining("redis.test. is not in the cert's altnames"),
  });
});

/** Names of our connections that came over TLS. */
async function connectionsOverTls(): Promise<Set<string>> {
  const admin = new Redis(server.url, { retryStrategy: () => null });
  const list = String(await admin.call("CLIENT", "LIST"));
  admin.disconnect();
  const ours = list.split("\n").filter((line) => line.includes(`laddr=127.0.0.1:${port} `));
  return new Set(ours.map((line) => / name=(\S*)/.exec(line)?.[1] ?? ""));
}

async function expectConnections(names: readonly string[]): Promise<void> {
  let found = new Set<string>();
  for (let tries = 0; tries < 200 && !names.every((name) => found.has(name)); tries += 1) {
    await systemClock.sleep(50);
    found = await connectionsOverTls();
  }
  expect([...found]).toEqual(expect.arrayContaining([...names]));
}

const redisSettings = () => ({
  DROVER_REDIS_URL: `rediss://127.0.0.1:${port}`,
  DROVER_REDIS_CA_FILE: join(folder, "ca.crt"),
  DROVER_LOG_LEVEL: "silent",
});

it.each([
  {
    command: "harness",
    connections: ["drover-command", "drover-blocking", "drover-subscriber"],
    settings: () => ({
      DROVER_POOL_CODE: TEST_POOL.code,
      DROVER_WORKER_ID: "worker",
      DROVER_HEALTH_HOST: "127.0.0.1",
      DROVER_HEALTH_PORT: "0",
    }),
  },
  {
    command: "proxy",
    connections: ["drover-command"],
    settings: () => ({
      DROVER_POD_UID: "pod",
      // Nobody is there: it goes on asking until it is stopped.
      DROVER_ISSUER_URL: "https://127.0.0.1:1",
      DROVER_ISSUER_CERTIFICATE_FILE: join(folder, "ca.crt"),
      DROVER_API_CA_FILE: join(folder, "ca.crt"),
      DROVER_PROXY_PORT: "0",
      DROVER_PROXY_HEALTH_HOST: "127.0.0.1",
      DROVER_PROXY_HEALTH_PORT: "0",
    }),
  },
])("the $command takes the authority from its settings", async (given) => {
  const child = spawn(process.execPath, [`src/cmd/${given.command}.ts`], {
    env: { PATH: process.env["PATH"], ...redisSettings(), ...given.settings() },
    stdio: "ignore",
  });
  children.push(child);
  const exited = once(child, "exit");

  await expectConnections(given.connections);
  child.kill("SIGTERM");
  expect(await exited).toEqual([0, null]);
});
