import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, describe, expect, it } from "@jest/globals";
import {
  createSelfSignedCertificate,
  type TlsIdentity,
} from "../../src/operator/issuer/certificate.ts";
import { createIssuer } from "../../src/operator/issuer/issuer.ts";
import { createIssuerServer } from "../../src/operator/issuer/server.ts";
import { KubeTokenReviewer } from "../../src/operator/issuer/token-review.ts";
import { ISSUER_TLS_NAME } from "../../src/protocol/proxy-api.ts";
import {
  AUDIENCES,
  executeClaims,
  generateSigningKey,
  sessionClaims,
  verifyToken,
} from "../../src/protocol/tokens.ts";
import { IssuerClient } from "../../src/proxy/issuer-client.ts";
import { systemClock } from "../../src/runtime/clock.ts";
import { AppError } from "../../src/runtime/errors.ts";
import { aSnapshot } from "../builders/snapshot.ts";
import { Cleanups } from "./proxy/rig.ts";

const snapshot = aSnapshot();
const REQUEST = { sessionId: snapshot.sessionId, tenant: "team-a", leaseToken: "lease-1" };

const cleanups = new Cleanups();
afterEach(async () => await cleanups.run());

/** A whole issuer behind TLS and the sidecar's client of it; the API server knows one token. */
async function start(options: { pinned?: TlsIdentity; storeDown?: boolean } = {}) {
  const tls = createSelfSignedCertificate(ISSUER_TLS_NAME, Date.now());
  const outcomes: string[] = [];
  const server = createIssuerServer({
    issuer: createIssuer({
      key: await generateSigningKey("key-1"),
      namespace: "drover-system",
      leases: {
        readLease: async () => {
          if (options.storeDown === true) throw new AppError("REDIS_UNREACHABLE", "no Redis");
          return { token: "lease-1", epoch: 3, owner: "pod-1", terminated: false };
        },
      },
      snapshots: { readSnapshot: async () => snapshot },
      bindings: {
        readBinding: async (id) =>
          id === "sbx-1"
            ? {
                sessionId: snapshot.sessionId,
                tenant: "team-a",
                hand: "main",
                generation: 1,
                ip: "10.0.0.1",
              }
            : null,
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
  return { client, tokenFile, outcomes };
}

function statusOf(review: object) {
  return JSON.stringify(review).includes('"token":"good-token"')
    ? {
        authenticated: true,
        audiences: ["drover-issuer"],
        user: {
          username: "system:serviceaccount:drover-system:drover-pool-default",
          extra: { "authentication.kubernetes.io/pod-uid": ["pod-1"] },
        },
      }
    : { authenticated: false };
}

describe("the issuer behind TLS", () => {
  it("signs a session and an execute token that its published keys verify", async () => {
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
