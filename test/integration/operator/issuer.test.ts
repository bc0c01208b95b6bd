import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, describe, expect, it } from "@jest/globals";
import { z } from "zod";
import {
  createSelfSignedCertificate,
  type TlsIdentity,
} from "../../../src/operator/issuer/certificate.ts";
import { Checkpoints } from "../../../src/operator/issuer/checkpoints.ts";
import { createIssuer } from "../../../src/operator/issuer/issuer.ts";
import { createIssuerServer } from "../../../src/operator/issuer/server.ts";
import { KubeTokenReviewer } from "../../../src/operator/issuer/token-review.ts";
import { ISSUER_TLS_NAME } from "../../../src/protocol/proxy-api.ts";
import { checkpointReader } from "../../../src/protocol/signed-checkpoint.ts";
import {
  AUDIENCES,
  executeClaims,
  generateSigningKey,
  leaseTokenHash,
  type SigningKey,
  sandboxClaims,
  sessionClaims,
  signToken,
  verifyToken,
} from "../../../src/protocol/tokens.ts";
import { IssuerClient } from "../../../src/proxy/issuer-client.ts";
import { systemClock } from "../../../src/runtime/clock.ts";
import { AppError } from "../../../src/runtime/errors.ts";
import { aSnapshot } from "../../builders/snapshot.ts";
import { Cleanups } from "../../cleanups.ts";

const snapshot = aSnapshot({ vaults: [{ name: "git", uid: "uid-1", entries: [] }] });
const REQUEST = { sessionId: snapshot.sessionId, tenant: "team-a", leaseToken: "lease-1" };

const cleanups = new Cleanups();
afterEach(async () => await cleanups.run());

/** A whole issuer behind TLS and the sidecar's client of it; the API server knows one token. */
async function start(options: { pinned?: TlsIdentity; storeDown?: boolean } = {}) {
  const tls = createSelfSignedCertificate(ISSUER_TLS_NAME, Date.now());
  const outcomes: string[] = [];
  const kept: string[] = [];
  const key = await generateSigningKey("key-1");
  const store = {
    lease: { token: "lease-1", epoch: 3, owner: "pod-1", terminated: false },
    binding: {
      sessionId: snapshot.sessionId,
      tenant: "team-a",
      hand: "main",
      generation: 1,
      ip: "10.0.0.1",
    },
  };
  const server = createIssuerServer({
    issuer: createIssuer({
      key,
      namespace: "drover-system",
      leases: {
        readLease: async () => {
          if (options.storeDown === true) throw new AppError("REDIS_UNREACHABLE", "no Redis");
          return store.lease;
        },
      },
      snapshots: { readSnapshot: async () => snapshot },
      bindings: {
        readBinding: async (id) => (id === "sbx-1" ? store.binding : null),
      },
      clock: systemClock,
    }),
    checkpoints: new Checkpoints({
      key,
      namespace: "drover-system",
      store: {
        appendCheckpoint: async (signed) => {
          if (options.storeDown === true) throw new AppError("REDIS_UNREACHABLE", "no Redis");
          kept.push(signed);
        },
      },
      clock: systemClock,
    }),
    reviewer: new KubeTokenReviewer({
      client: {
        create: async (_type, review) => ({ ...review, status: statusOf(review) }),
      },
      clock: systemClock,
    }),
    tls,
    onIssued: (outcome) => outcomes.push(outcome),
  });
  const url = await server.listen({ host: "127.0.0.1", port: 0 });
  cleanups.add(async () => await server.close());
  const directory = await mkdtemp(join(tmpdir(), "drover-issuer-"));
  cleanups.add(async () => await rm(directory, { recursive: true }));
  const tokenFile = join(directory, "token");
  await writeFile(tokenFile, "good-token\n");
  const client = new IssuerClient({
    url,
    certificate: (options.pinned ?? tls).cert,
    tokenFile,
  });
  cleanups.add(async () => await client.close());
  /** From now on the client is the edge, no more the sidecar of pod-1. */
  const becomeEdge = async () => await writeFile(tokenFile, "edge-token\n");
  return { client, tokenFile, outcomes, kept, key, store, becomeEdge };
}

function statusOf(review: object) {
  const token = /"token":"([^"]*)"/.exec(JSON.stringify(review))?.[1] ?? "";
  const [account, pod] =
    { "good-token": ["drover-pool-default", "pod-1"], "edge-token": ["drover-edge", "edge-1"] }[
      token
    ] ?? [];
  return account === undefined || pod === undefined
    ? { authenticated: false }
    : {
        authenticated: true,
        audiences: ["drover-issuer"],
        user: {
          username: `system:serviceaccount:drover-system:${account}`,
          extra: { "authentication.kubernetes.io/pod-uid": [pod] },
        },
      };
}

describe("the issuer behind TLS", () => {
  it("signs session, execute and sandbox tokens that its published keys verify", async () => {
    const { client, outcomes } = await start();

    const answer = await client.issue({ ...REQUEST, sandbox: { id: "sbx-1" } });
    const jwks = await client.keys();

    const now = Date.now();
    expect(JSON.stringify(jwks)).not.toContain('"d"');
    expect(
      await verifyToken(jwks, AUDIENCES.session, sessionClaims, answer.sessionToken, now),
    ).toMatchObject({ sub: snapshot.sessionId, epoch: 3, pod: "pod-1" });
    expect(
      await verifyToken(jwks, AUDIENCES.execute, executeClaims, answer.executeToken ?? "", now),
    ).toMatchObject({ sbx: "sbx-1", hand: "main", gen: 1 });
    const sandbox = await verifyToken(
      jwks,
      AUDIENCES.sandbox,
      sandboxClaims,
      answer.sandboxToken ?? "",
      now,
    );
    expect(sandbox).toMatchObject({ sbx: "sbx-1", hand: "main", gen: 1, ip: "10.0.0.1" });
    expect(sandbox.exp * 1000).toBeGreaterThan(now + 86_000_000);
    // When to ask again: the sandbox token outlives the two others.
    expect(answer.expiresAt).toBeLessThanOrEqual(now + 601_000);
    expect(outcomes).toEqual(["ok"]);
  });

  it("refuses a service account token that the API server does not know", async () => {
    const { client, tokenFile, outcomes } = await start();
    await writeFile(tokenFile, "stolen-token");

    await expect(client.issue(REQUEST)).rejects.toMatchObject({ code: "UNAUTHENTICATED" });
    expect(outcomes).toEqual(["refused"]);
  });

  it("hands its refusal through with code and reason", async () => {
    const { client } = await start();

    await expect(client.issue({ ...REQUEST, leaseToken: "guessed" })).rejects.toMatchObject({
      code: "SESSION_LEASE_LOST",
      message: expect.stringContaining("not held under this lease"),
    });
  });

  it("refuses an execute token for a sandbox bound to nobody", async () => {
    const { client } = await start();

    await expect(client.issue({ ...REQUEST, sandbox: { id: "sbx-2" } })).rejects.toMatchObject({
      code: "FORBIDDEN",
    });
  });

  it("says that the store is unreachable", async () => {
    const { client } = await start({ storeDown: true });

    await expect(client.issue(REQUEST)).rejects.toMatchObject({ code: "REDIS_UNREACHABLE" });
  });

  it("is not asked at all when its certificate is not the pinned one", async () => {
    const { client, outcomes } = await start({
      pinned: createSelfSignedCertificate(ISSUER_TLS_NAME, Date.now()),
    });

    await expect(client.issue(REQUEST)).rejects.toMatchObject({ code: "UNAVAILABLE" });
    expect(outcomes).toEqual([]);
  });

  it("is not asked without a service account token", async () => {
    const { client, tokenFile } = await start();
    await rm(tokenFile);

    await expect(client.issue(REQUEST)).rejects.toMatchObject({
      code: "UNAVAILABLE",
      retryable: true,
    });
  });
});

describe("checkpoints of the audit", () => {
  const checkpoint = { chain: "chain-1", seq: 7, hash: "ab".repeat(32) };

  it("are signed for the pod that asks, and kept", async () => {
    const { client, kept, becomeEdge, outcomes } = await start();

    await client.keepCheckpoint(checkpoint);
    await becomeEdge();
    await client.keepCheckpoint({ ...checkpoint, seq: 8 });

    const read = checkpointReader(await client.keys());
    expect(await Promise.all(kept.map(read))).toEqual([
      { ...checkpoint, podUid: "pod-1", signedAt: expect.any(Number) },
      { ...checkpoint, seq: 8, podUid: "edge-1", signedAt: expect.any(Number) },
    ]);
    expect(outcomes).toEqual([]);
  });

  it("are not signed for an unknown token, nor when they cannot be kept", async () => {
    const { client, kept, tokenFile } = await start();
    await writeFile(tokenFile, "stolen-token");
    await expect(client.keepCheckpoint(checkpoint)).rejects.toMatchObject({
      code: "UNAUTHENTICATED",
    });
    const { client: other } = await start({ storeDown: true });
    await expect(other.keepCheckpoint(checkpoint)).rejects.toMatchObject({
      code: "REDIS_UNREACHABLE",
    });
    expect(kept).toEqual([]);
  });
});

const vaultClaims = z.object({
  sub: z.string(),
  ten: z.string(),
  vlt: z.string(),
  vid: z.string(),
  jti: z.string().min(1),
  iat: z.int(),
  exp: z.int(),
});
const SANDBOX = { id: "sbx-1" };

describe("a token for the vault", () => {
  it.each(["sidecar", "edge"])("is given to the %s for who asked there", async (who) => {
    const { client, becomeEdge, outcomes } = await start();
    const { sessionToken, sandboxToken = "" } = await client.issue({
      ...REQUEST,
      sandbox: SANDBOX,
    });
    if (who === "edge") await becomeEdge();

    const answer = await client.vaultToken({
      token: who === "edge" ? sandboxToken : sessionToken,
      vault: "git",
    });

    const now = Date.now();
    const { vaultToken } = answer;
    const claims = await verifyToken(await client.keys(), "vault", vaultClaims, vaultToken, now);
    expect(claims).toMatchObject({
      sub: snapshot.sessionId,
      ten: "team-a",
      vlt: "git",
      vid: "team-a:git",
    });
    expect(claims.exp - claims.iat).toBe(60);
    expect(answer.expiresAt).toBe(claims.exp * 1000);
    expect(outcomes).toEqual(["ok", "ok"]);
  });

  it("is another one each time", async () => {
    const { client } = await start();
    const { sessionToken } = await client.issue(REQUEST);

    const ask = async () => await client.vaultToken({ token: sessionToken, vault: "git" });

    expect((await ask()).vaultToken).not.toBe((await ask()).vaultToken);
  });

  it("is refused to each proxy for what is shown to the other", async () => {
    const { client, becomeEdge, outcomes } = await start();
    const {
      sessionToken,
      executeToken = "",
      sandboxToken = "",
    } = await client.issue({
      ...REQUEST,
      sandbox: SANDBOX,
    });
    const ask = async (token: string) => await client.vaultToken({ token, vault: "git" });
    const refused = { code: "UNAUTHENTICATED", message: expect.stringContaining("CLAIM") };

    await expect(ask(sandboxToken)).rejects.toMatchObject(refused);
    await expect(ask(executeToken)).rejects.toMatchObject(refused);
    await becomeEdge();
    await expect(ask(sessionToken)).rejects.toMatchObject(refused);
    await expect(ask(executeToken)).rejects.toMatchObject(refused);
    expect(outcomes).toEqual(["ok", "refused", "refused", "refused", "refused"]);
  });

  it("is refused for a token that is forged, has run out or is a vault token itself", async () => {
    const { client, key } = await start();
    const claims = {
      sub: snapshot.sessionId,
      ten: "team-a",
      ver: "r1",
      epoch: 3,
      ltk: leaseTokenHash("lease-1"),
      pod: "pod-1",
    };
    const made = async (by: SigningKey, audience: string, nowMs: number) =>
      await signToken(by, audience, claims, { nowMs, lifeSeconds: 600 });
    const ask = async (token: string) => await client.vaultToken({ token, vault: "git" });
    const forger = await generateSigningKey("key-1");
    const now = Date.now();

    await ask(await made(key, AUDIENCES.session, now));
    for (const token of [
      await made(forger, AUDIENCES.session, now),
      await made(key, AUDIENCES.session, now - 601_000),
      await made(key, AUDIENCES.vault, now),
      "nonsense",
    ]) {
      await expect(ask(token)).rejects.toMatchObject({ code: "UNAUTHENTICATED" });
    }
  });

  it("is refused once the lease or the binding behind the shown token has changed", async () => {
    const { client, becomeEdge, store } = await start();
    const { sessionToken, sandboxToken = "" } = await client.issue({
      ...REQUEST,
      sandbox: SANDBOX,
    });
    store.lease = { ...store.lease, token: "lease-2", epoch: 4 };
    store.binding = { ...store.binding, generation: 2 };

    await expect(client.vaultToken({ token: sessionToken, vault: "git" })).rejects.toMatchObject({
      code: "SESSION_LEASE_LOST",
    });
    await becomeEdge();
    await expect(client.vaultToken({ token: sandboxToken, vault: "git" })).rejects.toMatchObject({
      code: "FORBIDDEN",
      message: expect.stringContaining("not bound"),
    });
  });

  it("is refused for a vault that the session does not name", async () => {
    const { client } = await start();
    const { sessionToken } = await client.issue(REQUEST);

    await expect(client.vaultToken({ token: sessionToken, vault: "other" })).rejects.toMatchObject({
      code: "FORBIDDEN",
      message: expect.stringContaining('"other"'),
    });
  });
});

it("the edge is given no token for a session", async () => {
  const { client, becomeEdge } = await start();
  await becomeEdge();

  await expect(client.issue(REQUEST)).rejects.toMatchObject({ code: "FORBIDDEN" });
});

it("an issuer without its store is waited for, one that refuses is not", async () => {
  const down = await start({ storeDown: true });
  const up = await start();

  await expect(down.client.issue(REQUEST)).rejects.toMatchObject({ retryable: true });
  await expect(up.client.issue({ ...REQUEST, leaseToken: "guessed" })).rejects.toMatchObject({
    retryable: false,
  });
});
