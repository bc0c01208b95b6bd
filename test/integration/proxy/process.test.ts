import { type ChildProcess, spawn } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, describe, expect, it } from "@jest/globals";
import { Redis } from "ioredis";
import { createSelfSignedCertificate } from "../../../src/operator/issuer/certificate.ts";
import { Checkpoints } from "../../../src/operator/issuer/checkpoints.ts";
import { createIssuer } from "../../../src/operator/issuer/issuer.ts";
import { createIssuerServer } from "../../../src/operator/issuer/server.ts";
import { ISSUER_TLS_NAME, tokensResponse } from "../../../src/protocol/proxy-api.ts";
import {
  checkpointReader,
  type SignedCheckpoint,
} from "../../../src/protocol/signed-checkpoint.ts";
import { generateSigningKey, type SigningKey } from "../../../src/protocol/tokens.ts";
import { AuditVerification } from "../../../src/proxy/audit-verify.ts";
import { systemClock } from "../../../src/runtime/clock.ts";
import { silentLogger } from "../../../src/runtime/logger.ts";
import { createRedisSessionPorts } from "../../../src/sessions/redis/redis-session-store.ts";
import { claimOne, newRef, newSession } from "../../builders/sessions.ts";
import { aSnapshot } from "../../builders/snapshot.ts";
import { Cleanups } from "../../cleanups.ts";
import { freePort } from "../../servers/free-ports.ts";
import { startRedis } from "../../servers/redis-server.ts";
import { openRedisStore } from "../../servers/redis-store.ts";
import { POD, startUpstream } from "./rig.ts";

const KEY = "CNRY-process-model-key";
const cleanups = new Cleanups();
afterEach(async () => await cleanups.run());

/** A session in a real Redis, held by this pod. */
async function heldSession() {
  const redis = await startRedis();
  cleanups.add(async () => await redis.stop());
  const store = await openRedisStore({ url: redis.url, timings: { ttlMs: 60_000 } });
  cleanups.add(async () => await store.close());
  const ref = newRef();
  const snapshot = aSnapshot({ sessionId: ref.id, tenant: ref.tenant });
  await store.log.createSession(newSession(ref, { snapshot }));
  return { redis, store, ref, lease: await claimOne(store, POD) };
}

async function startProxy(env: Record<string, string>): Promise<{
  child: ChildProcess;
  output: string[];
  exit: Promise<number | null>;
}> {
  const output: string[] = [];
  const child = spawn(process.execPath, ["src/cmd/proxy.ts"], {
    env,
    stdio: ["ignore", "pipe", "pipe"],
  });
  const exit = new Promise<number | null>((resolve) => child.once("exit", resolve));
  cleanups.add(async () => {
    child.kill("SIGKILL");
    await exit;
  });
  for (const stream of [child.stdout, child.stderr]) {
    stream?.on("data", (chunk: Buffer) => output.push(chunk.toString()));
  }
  return { child, output, exit };
}

async function untilReady(port: number, output: string[]): Promise<void> {
  const deadline = Date.now() + 30_000;
  for (;;) {
    const answer = await fetch(`http://127.0.0.1:${port}/readyz`).catch(() => undefined);
    if (answer?.status === 200) return;
    if (Date.now() > deadline) throw new Error(`the proxy is not ready: ${output.join("")}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

async function lastCheckpoint(url: string, key: SigningKey): Promise<SignedCheckpoint> {
  const client = new Redis(url);
  try {
    const [last] = await client.xrevrange("drover:px:audit", "+", "-", "COUNT", 1);
    return await checkpointReader({ keys: [key.publicJwk] })(last?.[1][1] ?? "");
  } finally {
    client.disconnect();
  }
}

describe("drover proxy", () => {
  it("serves a session that lives in Redis, loses it with its lease, and stops on SIGTERM", async () => {
    const { redis, store, ref, lease } = await heldSession();
    const upstream = await startUpstream(cleanups, (_received, response) => response.end("{}"));
    const directory = await mkdtemp(join(tmpdir(), "drover-proxy-process-"));
    cleanups.add(async () => await rm(directory, { recursive: true }));
    const tls = createSelfSignedCertificate(ISSUER_TLS_NAME, Date.now());
    const key = await generateSigningKey("key-1");
    const proxyRecords = createRedisSessionPorts({ url: redis.url, logger: silentLogger });
    cleanups.add(async () => proxyRecords.close());
    const issuer = createIssuerServer({
      checkpoints: new Checkpoints({
        key,
        namespace: "drover-system",
        store: proxyRecords,
        clock: systemClock,
      }),
      issuer: createIssuer({
        key,
        namespace: "drover-system",
        leases: store.ports,
        snapshots: store.ports,
        bindings: store.ports,
        clock: systemClock,
      }),
      reviewer: {
        review: async () => ({
          podUid: POD,
          serviceAccount: "drover-system/drover-pool-default",
        }),
      },
      tls,
      onIssued: () => {},
    });
    const issuerUrl = await issuer.listen({ host: "127.0.0.1", port: 0 });
    cleanups.add(async () => await issuer.close());
    const file = async (name: string, text: string) => {
      await writeFile(join(directory, name), text);
      return join(directory, name);
    };
    const [port, healthPort] = [await freePort(), await freePort()];
    const { child, output, exit } = await startProxy({
      DROVER_PROXY_PORT: String(port),
      DROVER_PROXY_HEALTH_PORT: String(healthPort),
      DROVER_PROXY_HEALTH_HOST: "127.0.0.1",
      DROVER_POD_UID: POD,
      DROVER_MODEL_BASE_URL: upstream.url,
      DROVER_MODEL_API_KEY_FILE: await file("model-key", KEY),
      DROVER_ISSUER_URL: issuerUrl,
      DROVER_ISSUER_CERTIFICATE_FILE: await file("issuer.crt", tls.cert),
      DROVER_ISSUER_TOKEN_FILE: await file("token", "service-account-token"),
      DROVER_API_CA_FILE: await file("ca.crt", tls.cert),
      DROVER_REDIS_URL: redis.url,
    });
    await untilReady(healthPort, output);
    const url = `http://127.0.0.1:${port}`;

    const issued = await fetch(`${url}/tokens`, {
      method: "POST",
      body: JSON.stringify({ sessionId: ref.id, tenant: ref.tenant, leaseToken: lease.token }),
    });
    const { sessionToken } = tokensResponse.parse(await issued.json());
    const ask = async () =>
      await fetch(`${url}/model/v1/messages`, {
        method: "POST",
        headers: { "content-type": "application/json", authorization: `Bearer ${sessionToken}` },
        body: "{}",
      });

    expect((await ask()).status).toBe(200);
    expect(upstream.received[0]?.headers["x-api-key"]).toBe(KEY);

    await lease.release({ kind: "requeue" });
    await new Promise((resolve) => setTimeout(resolve, 2100));
    expect((await ask()).status).toBe(409);

    const metrics = await (await fetch(`http://127.0.0.1:${healthPort}/metrics`)).text();
    expect(metrics).toContain(
      'drover_proxy_requests_total{role="model",destination="model",outcome="ok"} 1',
    );

    child.kill("SIGTERM");
    expect(await exit).toBe(0);
    expect(output.join("") + metrics).not.toContain(KEY);

    const verification = new AuditVerification([]);
    for (const line of output.join("").split("\n")) verification.add(line);
    const { records, heads, problems } = verification.report();
    expect({ records, problems }).toEqual({ records: 2, problems: [] });
    expect(await lastCheckpoint(redis.url, key)).toMatchObject({
      ...heads[0],
      podUid: POD,
      seq: 2,
    });
  });

  it("lists every setting it lacks and exits with 2", async () => {
    const { output, exit } = await startProxy({});

    expect(await exit).toBe(2);
    for (const name of [
      "DROVER_POD_UID",
      "DROVER_ISSUER_URL",
      "DROVER_ISSUER_CERTIFICATE",
      "DROVER_REDIS_URL",
    ]) {
      expect(output.join("")).toContain(name);
    }
  });
});
