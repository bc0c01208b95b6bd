import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "@jest/globals";
import { agentSpec } from "../../../src/api/agent.ts";
import { systemClock } from "../../../src/runtime/clock.ts";
import type { HttpServer } from "../../../src/runtime/http.ts";
import { silentLogger } from "../../../src/runtime/logger.ts";
import { createRegistry } from "../../../src/runtime/metrics.ts";
import { parseScripts } from "../../../src/scripted-model/script.ts";
import { createScriptedModel } from "../../../src/scripted-model/server.ts";
import type { SessionRef, SessionStore, StoredEvent } from "../../../src/sessions/session-log.ts";
import { message, newRef, TEST_POOL } from "../../builders/sessions.ts";
import { aSnapshot } from "../../builders/snapshot.ts";
import { type RedisServer, startRedis } from "../../servers/redis-server.ts";
import { openRedisStore } from "../../servers/redis-store.ts";

const SCRIPT = `
scenarios:
  slow:
    turns: [{ say: "a long answer, word by word ", repeat: 12, tokensPerSecond: 40 }]
  short:
    turns: [{ say: "done" }]
`;

let redis: RedisServer;
let store: SessionStore;
let model: HttpServer;
let sidecar: Server;
let sidecarUrl = "";
const children: ChildProcess[] = [];

beforeAll(async () => {
  redis = await startRedis();
  store = await openRedisStore({ url: redis.url });
  model = createScriptedModel({
    script: parseScripts([{ name: "t.yaml", text: SCRIPT }]),
    clock: systemClock,
    logger: silentLogger,
    registry: createRegistry("scripted-model", "test"),
  });
  const modelUrl = await model.listen({ host: "127.0.0.1", port: 0 });
  sidecar = createSidecar(modelUrl);
  await new Promise<void>((resolve) => sidecar.listen(0, "127.0.0.1", resolve));
  sidecarUrl = `http://127.0.0.1:${(sidecar.address() as AddressInfo).port}`;
});

afterEach(() => {
  for (const child of children.splice(0)) child.kill("SIGKILL");
});

afterAll(async () => {
  await store.close();
  sidecar.closeAllConnections();
  sidecar.close();
  await model.close();
  await redis.stop();
});

/** Tokens for anybody, and the model's stream passed through. */
function createSidecar(modelUrl: string): Server {
  return createServer((request, response) => {
    void (async () => {
      const chunks: Buffer[] = [];
      for await (const chunk of request) chunks.push(chunk as Buffer);
      if (request.url === "/tokens") {
        response.writeHead(200, { "content-type": "application/json" });
        response.end(JSON.stringify({ sessionToken: "s", expiresAt: Date.now() + 600_000 }));
        return;
      }
      const answer = await fetch(`${modelUrl}${request.url?.replace("/model", "")}`, {
        method: "POST",
        headers: { "content-type": "application/json", "anthropic-version": "2023-06-01" },
        body: Buffer.concat(chunks),
      });
      response.writeHead(answer.status, { "content-type": "text/event-stream" });
      for await (const chunk of answer.body ?? []) response.write(chunk);
      response.end();
    })().catch(() => response.destroy());
  });
}

interface Harness {
  child: ChildProcess;
  output: () => string;
  exited: Promise<number | null>;
}

function startHarness(env: Record<string, string> = {}, flags: string[] = []): Harness {
  const child = spawn(process.execPath, [...flags, "src/cmd/harness.ts"], {
    env: {
      PATH: process.env["PATH"],
      DROVER_REDIS_URL: redis.url,
      DROVER_POOL_CODE: TEST_POOL.code,
      DROVER_POOL_PARTITIONS: String(TEST_POOL.partitions),
      DROVER_WORKER_ID: `pod-${children.length}`,
      DROVER_PROXY_URL: sidecarUrl,
      DROVER_HEALTH_HOST: "127.0.0.1",
      DROVER_HEALTH_PORT: "0",
      ...env,
    },
    stdio: ["ignore", "pipe", "pipe"],
  });
  children.push(child);
  let output = "";
  for (const stream of [child.stdout, child.stderr]) {
    stream.on("data", (chunk: Buffer) => {
      output += chunk.toString("utf8");
    });
  }
  const exited = once(child, "exit").then(([code]) => code as number | null);
  return { child, output: () => output, exited };
}

async function createSession(): Promise<SessionRef> {
  const ref = newRef();
  const spec = agentSpec.parse({ model: "scripted:slow" });
  const snapshot = aSnapshot({
    sessionId: ref.id,
    tenant: ref.tenant,
    agent: { ...spec, name: "a", revision: "r" },
  });
  await store.log.createSession({ ...ref, snapshot, events: [message("go")], source: "api" });
  return ref;
}

/** A session whose log holds so many megabytes that the next request needs. */
async function createLargeSession(megabytes: number): Promise<SessionRef> {
  const ref = newRef();
  const spec = agentSpec.parse({ model: "scripted:short", contextWindowTokens: 10_000_000 });
  const agent = { ...spec, name: "a", revision: "r" };
  const snapshot = aSnapshot({ sessionId: ref.id, tenant: ref.tenant, agent });
  await store.log.createSession({ ...ref, snapshot, events: [message("go")], source: "api" });
  for (let i = 0; i < megabytes * 2; i += 1) {
    const batch = Array.from({ length: 4 }, () => message("some words ".repeat(12_000)));
    await store.log.emitEvents(ref, batch, { idempotencyKey: `${i}`, durability: "applied" });
  }
  return ref;
}

async function until(ref: SessionRef, type: string): Promise<StoredEvent[]> {
  const end = performance.now() + 30_000;
  for (;;) {
    const events: StoredEvent[] = [];
    for await (const event of store.log.getEvents(ref)) events.push(event);
    if (events.some((event) => event.type === type)) return events;
    if (performance.now() > end) throw new Error(`no ${type} in ${JSON.stringify(events)}`);
    await systemClock.sleep(30);
  }
}

describe("the harness process", () => {
  it("killed in the middle of an answer is followed by another, and SIGTERM ends it well", async () => {
    const first = startHarness();
    const ref = await createSession();
    await until(ref, "model.request_start");
    first.child.kill("SIGKILL");
    const second = startHarness();

    const events = await until(ref, "session.status_idle");

    expect(events.map((event) => event.type)).toEqual([
      "user.message",
      "model.request_start",
      "model.request_abandoned",
      "model.request_start",
      "model.request_end",
      "session.status_idle",
    ]);
    second.child.kill("SIGTERM");
    expect(await second.exited).toBe(0);
    expect(second.output()).toContain('"state":"stopped"');
    expect(second.output()).not.toContain("a long answer");
  });

  it("lives through more sessions than its memory holds, and all of them end", async () => {
    const refs = await Promise.all(Array.from({ length: 16 }, () => createLargeSession(4)));
    const harness = startHarness({}, ["--max-old-space-size=128"]);

    for (const ref of refs) await until(ref, "session.status_idle");

    expect(harness.child.exitCode).toBeNull();
    expect(harness.child.signalCode).toBeNull();
  }, 90_000);

  it("tells a session that is larger than all of its memory, and stays up", async () => {
    const ref = await createLargeSession(16);
    const harness = startHarness({}, ["--max-old-space-size=80"]);

    const events = await until(ref, "session.status_idle");

    const error = events.find((event) => event.type === "session.error");
    expect(error?.data).toMatchObject({
      retry_status: "exhausted",
      message: expect.stringContaining("raise spec.resources.memory of the HarnessPool"),
    });
    expect(harness.child.exitCode).toBeNull();
  }, 60_000);

  it("says what is wrong with its settings and exits with 2", async () => {
    const harness = startHarness({ DROVER_POOL_CODE: "way too long", DROVER_CONCURRENCY: "none" });

    expect(await harness.exited).toBe(2);
    expect(harness.output()).toContain("DROVER_POOL_CODE");
    expect(harness.output()).toContain("DROVER_CONCURRENCY");
  });

  it("exits with the reason when Redis is not there", async () => {
    const harness = startHarness({ DROVER_REDIS_URL: "redis://127.0.0.1:1" });

    expect(await harness.exited).toBe(1);
    expect(harness.output()).toContain("127.0.0.1:1");
  });
});
