import { readFile, writeFile } from "node:fs/promises";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "@jest/globals";
import { Redis } from "ioredis";
import { createIssuer, type TokenIssuer } from "../../src/operator/issuer/issuer.ts";
import { generateSigningKey, type SigningKey } from "../../src/protocol/tokens.ts";
import { SandboxTokenCheck } from "../../src/proxy/sandbox-token.ts";
import { PublicKeys } from "../../src/proxy/token.ts";
import { systemClock } from "../../src/runtime/clock.ts";
import { AppError } from "../../src/runtime/errors.ts";
import { sessionKeys } from "../../src/sessions/keys.ts";
import type { Lease, SessionStore } from "../../src/sessions/session-log.ts";
import { newRef, newSession } from "../builders/sessions.ts";
import { aSnapshot } from "../builders/snapshot.ts";
import { Cleanups } from "../cleanups.ts";
import { Rig, startUpstream, TENANT, type Upstream } from "../integration/proxy/rig.ts";
import { type RedisServer, startRedis } from "../servers/redis-server.ts";
import { openRedisStore } from "../servers/redis-store.ts";
import { newMarker } from "./sweeper.ts";

/**
 * T05: a harness that has lost its session, because it was frozen or cut off, wakes up and repeats a
 * tool call that has effects. Its token has not run out, its sidecar is healthy; the lease, which
 * another pod holds now, must be what refuses it. On a real Redis, with a sidecar for each pod.
 */

const NAMESPACE = "drover-system";
const SANDBOX = "sbx-1";
const NEWS = { jsonrpc: "2.0", method: "notifications/message", params: { data: "news" } };
const TTL_MS = 500;

const cleanups = new Cleanups();
const credential = newMarker("T05");
let redis: RedisServer;
let store: SessionStore;
let key: SigningKey;
let issuer: TokenIssuer;
let upstream: Upstream;
/** Sends an event in the stream that was opened last. */
let push = () => {};
/** For the sidecars. */
let redisIsAway = false;
let sidecars: { first: Rig; second: Rig };

beforeAll(async () => {
  redis = await startRedis();
  cleanups.add(async () => await redis.stop());
  store = await openRedisStore({ url: redis.url, timings: { ttlMs: TTL_MS, renewMs: 100 } });
  cleanups.add(async () => await store.close());
  key = await generateSigningKey("key-1");
  issuer = createIssuer({
    key,
    namespace: NAMESPACE,
    leases: store.ports,
    snapshots: store.ports,
    bindings: store.ports,
    clock: systemClock,
  });
  upstream = await startUpstream(cleanups, ({ method, body }, response) => {
    if (method === "GET" || body.includes('"slow"')) {
      response.writeHead(200, { "content-type": "text/event-stream" });
      response.write(": open\n\n");
      push = () => response.write(`data: ${JSON.stringify(NEWS)}\n\n`);
      return;
    }
    const { id } = JSON.parse(body) as { id: number };
    response.writeHead(200, { "content-type": "application/json" });
    const tools = ["charge", "slow"].map((name) => ({ name, inputSchema: { type: "object" } }));
    const result = { content: [{ type: "text", text: "charged" }], tools };
    response.end(JSON.stringify({ jsonrpc: "2.0", id, result }));
  });
  sidecars = { first: await startSidecar("pod-1"), second: await startSidecar("pod-2") };
}, 60_000);

afterAll(async () => await cleanups.run());

async function startSidecar(podUid: string): Promise<Rig> {
  return await Rig.start(cleanups, {
    podUid,
    key,
    store: {
      readLease: async (tenant, id) => {
        if (redisIsAway) throw new AppError("UNAVAILABLE", "Redis does not answer");
        return await store.ports.readLease(tenant, id);
      },
      readSnapshot: async (tenant, id) => await store.ports.readSnapshot(tenant, id),
    },
    inClusterServers: [upstream.authority],
    secrets: { [TENANT]: { bank: { token: credential } } },
  });
}

const caller = (podUid: string) => ({
  podUid,
  serviceAccount: `${NAMESPACE}/drover-pool-default`,
});

/** A session that pod-1 has claimed; its harness holds a token of its sidecar. */
let ref: { tenant: string; id: string };
let lease: Lease;
let token: string;

beforeEach(async () => {
  ref = newRef(TENANT);
  const base = aSnapshot();
  const snapshot = aSnapshot({
    sessionId: ref.id,
    agent: {
      ...base.agent,
      mcpServers: [{ name: "bank", url: upstream.url }],
      tools: [
        {
          type: "mcp_toolset",
          mcpServerName: "bank",
          defaultConfig: { permissionPolicy: "always_allow" },
        },
      ],
    },
    vaults: [
      {
        name: "main",
        uid: "uid-1",
        entries: [
          {
            name: "bank",
            mcpServerUrl: upstream.url,
            secretRef: { name: "bank", key: "token" },
            header: "Authorization",
            scheme: "Bearer",
          },
        ],
      },
    ],
  });
  await store.log.createSession(newSession(ref, { snapshot }));
  lease = await claim("pod-1");
  token = await sidecars.first.token(ref.id, lease.token);
});

/** The next claim of the session by a worker in this pod. */
async function claim(podUid: string): Promise<Lease> {
  const stop = new AbortController();
  const options = { capacity: () => 1, signal: stop.signal };
  for await (const claimed of store.queue(podUid).claim(options)) {
    stop.abort();
    if (claimed.ref.id === ref.id) return claimed;
    throw new Error("a session of another test was claimed");
  }
  throw new Error("nothing was claimed");
}

/** Pod-1 is frozen: its lease runs out untold and pod-2 takes the session over. */
async function freezeAndTakeOver(): Promise<Lease> {
  lease.abandon();
  const taken = await claim("pod-2");
  expect(taken.epoch).toBe(lease.epoch + 1);
  return taken;
}

async function send(sidecar: Rig, by: string, method: string, params: object): Promise<Response> {
  return await fetch(`${sidecar.url}/mcp/bank`, {
    method: "POST",
    headers: { "content-type": "application/json", authorization: `Bearer ${by}` },
    body: JSON.stringify({ jsonrpc: "2.0", id: 1, method, params }),
  });
}

async function charge(sidecar: Rig, by: string): Promise<Response> {
  return await send(sidecar, by, "tools/call", {
    name: "charge",
    arguments: { order: ref.id },
  });
}

/** Charges of this test's session that reached the server. */
function charges(): string[] {
  return upstream.received
    .filter(({ body }) => body.includes('"tools/call"') && body.includes(ref.id))
    .map(({ headers }) => headers.authorization ?? "");
}

async function expectCharged(response: Response): Promise<void> {
  expect([response.status, await response.text()]).toEqual([
    200,
    expect.stringContaining("charged"),
  ]);
}

/** Whether it was refused because of the lease, and not for some other reason. */
async function refusedFor(response: Response): Promise<string> {
  const text = await response.text();
  return /SESSION_LEASE_LOST|not held under this lease/.test(text)
    ? `${response.status} lease`
    : `${response.status} ${text}`;
}

describe("T05: a harness whose session was taken over", () => {
  it("repeats a tool call and is refused; the server is called exactly once", async () => {
    await expectCharged(await charge(sidecars.first, token));
    const taken = await freezeAndTakeOver();

    const repeated = await charge(sidecars.first, token);

    expect(await refusedFor(repeated)).toBe("409 lease");
    expect(charges()).toEqual([`Bearer ${credential}`]);
    // The token itself is good: who holds the session goes on.
    const next = await sidecars.second.token(ref.id, taken.token);
    await expectCharged(await charge(sidecars.second, next));
    expect(charges()).toHaveLength(2);
  });

  it("is refused at once, although its sidecar saw the lease a moment ago", async () => {
    const listed = await send(sidecars.first, token, "tools/list", {});
    expect(listed.status).toBe(200);
    // Handed over, and yet it goes on: the quickest way to be a zombie.
    await lease.release({ kind: "requeue" });
    await claim("pod-2");

    expect(await refusedFor(await charge(sidecars.first, token))).toBe("409 lease");
    expect(charges()).toEqual([]);
  });

  it("is refused although a failover of Redis has given its epoch out again", async () => {
    const taken = await freezeAndTakeOver();
    const connection = new Redis(redis.url, { protocol: 2 });
    const { meta } = sessionKeys(ref);
    await connection.hset(meta, "ep", lease.epoch, "own", "pod-1", "tok", taken.token);
    connection.disconnect();

    expect(await refusedFor(await charge(sidecars.first, token))).toBe("409 lease");
    expect(charges()).toEqual([]);
  });

  it("gets no new token, and the one its sidecar has kept is of no use", async () => {
    await freezeAndTakeOver();
    const ask = { sessionId: ref.id, tenant: TENANT, leaseToken: lease.token };

    const kept = await sidecars.first.token(ref.id, lease.token);

    expect(await refusedFor(await charge(sidecars.first, kept))).toBe("409 lease");
    await expect(issuer.issue(ask, caller("pod-1"))).rejects.toMatchObject({
      code: "SESSION_LEASE_LOST",
    });
    expect(charges()).toEqual([]);
  });

  it("is refused by the sidecar of the pod that holds the session", async () => {
    await freezeAndTakeOver();

    const answer = await charge(sidecars.second, token);

    expect([answer.status, await answer.text()]).toEqual([
      401,
      expect.stringContaining("another pod"),
    ]);
    expect(charges()).toEqual([]);
  });

  it("opens no vault any more", async () => {
    const ask = async (by: string, podUid: string) =>
      await issuer.vaultToken({ token: by, vault: "main" }, caller(podUid));
    await ask(token, "pod-1");

    const taken = await freezeAndTakeOver();

    await expect(ask(token, "pod-1")).rejects.toMatchObject({ code: "SESSION_LEASE_LOST" });
    // Nor by the proxy of another pod that it hands its token to.
    await expect(ask(token, "pod-2")).rejects.toMatchObject({ code: "FORBIDDEN" });
    await ask(await sidecars.second.token(ref.id, taken.token), "pod-2");
  });
});

describe("T05: a stream that was open when its session was taken over", () => {
  it.each(["GET", "POST"] as const)(
    "ends on both sides and tells the old harness nothing more: %s",
    async (method) => {
      const { aborted } = upstream;
      const stream = { text: "", over: false };
      void readInto(stream, await open(method));
      await within(3000, () => stream.text !== "");
      push();
      await within(3000, () => stream.text.includes("news"));
      const before = stream.text.split("news").length;

      await freezeAndTakeOver();
      await within(6000, () => stream.over && upstream.aborted === aborted + 1);
      push();

      expect([stream.over, upstream.aborted]).toEqual([true, aborted + 1]);
      expect(stream.text.split("news")).toHaveLength(before);
    },
  );

  it("ends as well when only its credential was taken away", async () => {
    const { aborted } = upstream;
    const streams = await Promise.all(
      (["GET", "POST"] as const).map(async (method) => {
        const stream = { text: "", over: false };
        void readInto(stream, await open(method));
        await within(3000, () => stream.text !== "");
        return stream;
      }),
    );
    const { credentialsFile } = sidecars.first;
    const secrets = await readFile(credentialsFile);
    try {
      await writeFile(credentialsFile, "{}");
      await within(8000, () => upstream.aborted === aborted + 2 && streams.every((s) => s.over));
    } finally {
      await writeFile(credentialsFile, secrets);
    }

    expect([streams.map((s) => s.over), upstream.aborted]).toEqual([[true, true], aborted + 2]);
  });

  async function open(method: "GET" | "POST"): Promise<Response> {
    if (method === "POST") {
      return await send(sidecars.first, token, "tools/call", { name: "slow", arguments: {} });
    }
    return await fetch(`${sidecars.first.url}/mcp/bank`, {
      headers: { authorization: `Bearer ${token}` },
    });
  }

  async function readInto(stream: { text: string; over: boolean }, answer: Response) {
    try {
      for await (const chunk of answer.body ?? []) {
        stream.text += Buffer.from(chunk).toString("utf8");
      }
    } catch {
      // Broken off, which is an end too.
    }
    stream.over = true;
  }

  /** Waits no longer than that; the test then sees what is so. */
  async function within(ms: number, check: () => boolean): Promise<void> {
    const deadline = Date.now() + ms;
    while (!check() && Date.now() < deadline) {
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }
});

describe("T05: a token where it is not for", () => {
  const edge = () =>
    new SandboxTokenCheck({
      keys: new PublicKeys({ issuer, clock: systemClock }),
      bindings: store.ports,
      leases: store.ports,
      clock: systemClock,
    });

  async function tokens(): Promise<Record<"session" | "execute" | "sandbox", string>> {
    const { tenant, id: sessionId } = ref;
    const binding = { tenant, sessionId, hand: "main", generation: 1, ip: "10.0.0.7" };
    await store.operator.bindSandbox(SANDBOX, binding);
    const answer = await issuer.issue(
      { sessionId, tenant, leaseToken: lease.token, sandbox: { id: SANDBOX } },
      caller("pod-1"),
    );
    const {
      sessionToken: session,
      executeToken: execute = "",
      sandboxToken: sandbox = "",
    } = answer;
    return { session, execute, sandbox };
  }

  it("is refused by the sidecar, which takes session tokens only", async () => {
    const { session, execute, sandbox } = await tokens();

    await expectCharged(await charge(sidecars.first, session));
    for (const other of [execute, sandbox]) {
      const answer = await charge(sidecars.first, other);
      // By its audience, whatever else it says.
      expect([answer.status, await answer.text()]).toEqual([
        401,
        expect.stringContaining("CLAIM_VALIDATION_FAILED"),
      ]);
    }
    expect(charges()).toHaveLength(1);
  });

  it("is refused by the edge, which takes sandbox tokens only, from their sandbox", async () => {
    const { session, execute, sandbox } = await tokens();
    const verify = async (by: string, address = "10.0.0.7") =>
      await edge().verify(`Bearer ${by}`, address);

    expect(await verify(sandbox)).toMatchObject({ session: { id: ref.id } });
    for (const other of [session, execute]) {
      await expect(verify(other)).rejects.toMatchObject({
        code: "UNAUTHENTICATED",
        message: expect.stringContaining("CLAIM_VALIDATION_FAILED"),
      });
    }
    await expect(verify(sandbox, "10.0.0.8")).rejects.toMatchObject({ code: "FORBIDDEN" });
    await store.operator.unbindSandbox(SANDBOX);
    await expect(verify(sandbox)).rejects.toMatchObject({ code: "FORBIDDEN" });
  });
});

it("T05: while Redis does not answer, who cannot prove its lease calls no tool", async () => {
  expect((await send(sidecars.first, token, "tools/list", {})).status).toBe(200);
  redisIsAway = true;
  try {
    const called = await charge(sidecars.first, token);
    const listed = await send(sidecars.first, token, "tools/list", {});

    expect([called.status, charges()]).toEqual([503, []]);
    // Reading goes on for a moment, on what was known: it is the call that is refused, not everything.
    expect(listed.status).toBe(200);
  } finally {
    redisIsAway = false;
  }
});
