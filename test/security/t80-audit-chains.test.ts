import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Readable, Writable } from "node:stream";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "@jest/globals";
import type { Redis } from "ioredis";
import { SignJWT } from "jose";
import { Agent, request } from "undici";
import { auditVerifyMain } from "../../src/cmd/audit-verify.ts";
import { createSelfSignedCertificate } from "../../src/operator/issuer/certificate.ts";
import { Checkpoints } from "../../src/operator/issuer/checkpoints.ts";
import { createIssuer } from "../../src/operator/issuer/issuer.ts";
import { createIssuerServer } from "../../src/operator/issuer/server.ts";
import { KubeTokenReviewer } from "../../src/operator/issuer/token-review.ts";
import { ISSUER_TLS_NAME } from "../../src/protocol/proxy-api.ts";
import { signCheckpoint } from "../../src/protocol/signed-checkpoint.ts";
import {
  AUDIENCES,
  generateSigningKey,
  type SigningKey,
  signToken,
} from "../../src/protocol/tokens.ts";
import { AuditLog } from "../../src/proxy/audit.ts";
import { type AuditRecord, auditRecord, hashOf } from "../../src/proxy/audit-record.ts";
import { IssuerClient } from "../../src/proxy/issuer-client.ts";
import { createProxyMetrics } from "../../src/proxy/metrics.ts";
import { systemClock } from "../../src/runtime/clock.ts";
import { silentLogger } from "../../src/runtime/logger.ts";
import { Registry } from "../../src/runtime/metrics.ts";
import { createRedisSessionPorts } from "../../src/sessions/redis/redis-session-store.ts";
import { Cleanups } from "../cleanups.ts";
import { type RedisWithUsers, startRedisWithUsers } from "../servers/redis-users.ts";

/**
 * T80: proxies keep an audit log, the issuer signs how far it had got. A harness, another proxy, or
 * whoever can write to the log or to Redis as a proxy tries to pass a forged log for theirs.
 */

const NAMESPACE = "drover-system";
/** Service account tokens, and whose the API server says that they are. */
const ACCOUNTS: Readonly<Record<string, [account: string, pod: string]>> = {
  "sidecar-1": ["drover-pool-default", "pod-1"],
  "sidecar-2": ["drover-pool-default", "pod-2"],
  "somebody-else": ["default", "pod-3"],
};

const cleanups = new Cleanups();
const perTest = new Cleanups();
let redis: RedisWithUsers;
let admin: Redis;
let key: SigningKey;
let url: string;
let certificate: string;
let folder: string;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "drover-t80-"));
  cleanups.add(async () => await rm(folder, { recursive: true, force: true }));
  redis = await startRedisWithUsers();
  cleanups.add(async () => await redis.stop());
  admin = redis.connect("admin");
  const store = createRedisSessionPorts({ ...redis.as("operator"), logger: silentLogger });
  cleanups.add(async () => store.close());
  // Until the connection is up its verbs reject.
  while ((await store.readBinding("nobody").catch(() => undefined)) === undefined) {
    await systemClock.sleep(20);
  }
  key = await generateSigningKey("key-1");
  const tls = createSelfSignedCertificate(ISSUER_TLS_NAME, Date.now());
  certificate = tls.cert;
  const common = { key, namespace: NAMESPACE, clock: systemClock };
  const server = createIssuerServer({
    issuer: createIssuer({ ...common, leases: store, snapshots: store, bindings: store }),
    checkpoints: new Checkpoints({ ...common, store }),
    reviewer: new KubeTokenReviewer({
      client: { create: async (_type, review) => ({ ...review, status: statusOf(review) }) },
      clock: systemClock,
    }),
    tls,
    onIssued: () => {},
  });
  url = await server.listen({ host: "127.0.0.1", port: 0 });
  cleanups.add(async () => await server.close());
});

afterEach(async () => {
  await perTest.run();
  await admin.del("drover:px:audit");
});
afterAll(async () => await cleanups.run());

function statusOf(review: object) {
  const token = /"token":"([^"]*)"/.exec(JSON.stringify(review))?.[1] ?? "";
  const [account, pod] = ACCOUNTS[token] ?? [];
  if (account === undefined || pod === undefined) return { authenticated: false };
  return {
    authenticated: true,
    audiences: ["drover-issuer"],
    user: {
      username: `system:serviceaccount:${NAMESPACE}:${account}`,
      extra: { "authentication.kubernetes.io/pod-uid": [pod] },
    },
  };
}

async function clientOf(token: string): Promise<IssuerClient> {
  const tokenFile = join(folder, token);
  await writeFile(tokenFile, token);
  const client = new IssuerClient({ url, certificate, tokenFile });
  perTest.add(async () => await client.close());
  return client;
}

/** The log of a proxy: as many records, and the checkpoint of their end, signed and kept. */
async function proxyLog(podUid: string, records: number): Promise<string[]> {
  const lines: string[] = [];
  const log = new AuditLog({
    sink: { write: (line) => lines.push(line) },
    checkpoints: await clientOf(`sidecar-${podUid.at(-1) ?? ""}`),
    process: "proxy",
    podUid,
    clock: systemClock,
    logger: silentLogger,
    metrics: createProxyMetrics(new Registry()),
  });
  const stop = new AbortController();
  const running = log.run(stop.signal);
  for (let each = 1; each <= records; each += 1) {
    log.record({ role: "mcp", tool: "echo", bytesIn: each, bytesOut: 1, ms: 1, redactions: 0 });
  }
  stop.abort();
  await running;
  return lines;
}

/** A record that fits behind `before`, whoever makes it. */
function forged(before: AuditRecord, changes: Partial<AuditRecord>): string {
  const { hash: prevHash, ...rest } = before;
  const record = { ...rest, seq: before.seq + 1, prevHash, ...changes };
  return JSON.stringify({ ...record, hash: hashOf(record) });
}

const lastOf = (lines: readonly string[]) => auditRecord.parse(JSON.parse(lines.at(-1) ?? ""));

/** `drover audit verify` with what stands in Redis, or with these entries in its place. */
async function verify(lines: readonly string[], options: { entries?: string[]; pod?: string[] }) {
  const stored = await admin.xrange("drover:px:audit", "-", "+");
  const entries =
    options.entries?.map((signed, index) => [`${index}-1`, "checkpoint", signed]) ??
    stored.map(([id, fields]) => [id, ...fields]);
  const [checkpoints, keys] = [join(folder, "checkpoints"), join(folder, "keys.json")];
  await writeFile(checkpoints, entries.flat().join("\n"));
  await writeFile(keys, JSON.stringify({ keys: [key.publicJwk] }));
  let output = "";
  const code = await auditVerifyMain(
    { checkpoint: [], checkpoints: [checkpoints], keys: [keys], pod: options.pod ?? [] },
    {
      input: Readable.from(lines.map((line) => `${line}\n`)),
      output: new Writable({
        write: (chunk, _encoding, done) => {
          output += String(chunk);
          done();
        },
      }),
      // An hour later: nothing waits for its checkpoint any more.
      clock: { now: () => Date.now() + 3_600_000 },
    },
  );
  return { code, output };
}

describe("a log of two proxies", () => {
  it("is found whole, as control", async () => {
    const lines = [...(await proxyLog("pod-1", 3)), ...(await proxyLog("pod-2", 2))];

    const { code, output } = await verify(lines, {});

    expect(output).toContain("5 records, 2 chains, 0 problems");
    expect(code).toBe(0);
  });

  it("with a chain that a harness made up is not", async () => {
    const lines = await proxyLog("pod-1", 2);
    const made = forged({ ...lastOf(lines), chain: "made-up", seq: 0, hash: "" }, {});

    const { code, output } = await verify([...lines, made], {});

    expect(output).toContain("chain made-up of pod pod-1 has no checkpoint");
    expect(code).toBe(1);
  });

  it("with records that a harness added to the proxy's own chain is not", async () => {
    const lines = await proxyLog("pod-1", 2);

    const { code, output } = await verify([...lines, forged(lastOf(lines), {})], {});

    expect(output).toContain("records 3 to 3 have no checkpoint: they were added by somebody else");
    expect(code).toBe(1);
  });

  it("whose end is cut, or of which one pod is missing, is not", async () => {
    const [one, other] = [await proxyLog("pod-1", 3), await proxyLog("pod-2", 2)];

    const cut = await verify([...one.slice(0, 2), ...other], {});
    const missing = await verify(other, {});

    expect(cut.output).toContain("record 3 of a checkpoint is missing: the log ends at 2");
    expect(missing.output).toContain("of pod pod-1: record 3 of a checkpoint is missing, and all");
    expect([cut.code, missing.code]).toEqual([1, 1]);
  });

  it("in which the records of another pod stand for those of the one asked for is not", async () => {
    await proxyLog("pod-1", 2);

    const { code, output } = await verify(await proxyLog("pod-2", 2), { pod: ["pod-1"] });

    expect(output).toContain("of pod pod-2 is of another pod than was asked for");
    expect(code).toBe(1);
  });

  it("does not look whole without checkpoints", async () => {
    const lines = await proxyLog("pod-1", 2);
    const made = forged({ ...lastOf(lines), chain: "made-up", seq: 0, hash: "" }, {});
    const options = { checkpoint: [], checkpoints: [], keys: [], pod: [] };

    const code = await auditVerifyMain(options, {
      input: Readable.from([...lines, made].map((line) => `${line}\n`)),
      output: new Writable({ write: (_chunk, _encoding, done) => done() }),
      clock: systemClock,
    });

    expect(code).toBe(1);
  });
});

describe("a checkpoint", () => {
  const wanted = { chain: "made-up", seq: 1, hash: "0".repeat(64) };

  it("is not signed for a harness, whatever it holds", async () => {
    const dispatcher = new Agent({ connect: { ca: certificate, servername: ISSUER_TLS_NAME } });
    perTest.add(async () => await dispatcher.destroy());
    const times = { nowMs: Date.now(), lifeSeconds: 600 };
    const session = await signToken(key, AUDIENCES.session, { sub: "sesn_1" }, times);
    const ask = async (headers: Record<string, string>) => {
      const answer = await request(new URL("/v1/audit-checkpoints", url), {
        method: "POST",
        dispatcher,
        headers: { "content-type": "application/json", ...headers },
        body: JSON.stringify(wanted),
      });
      return answer.statusCode;
    };

    expect(await ask({})).toBe(401);
    expect(await ask({ authorization: `Bearer ${session}` })).toBe(401);
    const other = await clientOf("somebody-else");
    await expect(other.keepCheckpoint(wanted)).rejects.toMatchObject({ code: "FORBIDDEN" });
    expect(await admin.xlen("drover:px:audit")).toBe(0);
  });

  it("that another pod's proxy has had signed for a chain does not make it that pod's", async () => {
    const lines = await proxyLog("pod-1", 1);
    const made = forged({ ...lastOf(lines), chain: "made-up", seq: 0, hash: "" }, {});
    const { chain, seq, hash } = lastOf([made]);

    await (await clientOf("sidecar-2")).keepCheckpoint({ chain, seq, hash });
    const { code, output } = await verify([...lines, made], {});

    expect(output).toContain("chain made-up of pod pod-1 has no checkpoint");
    expect(code).toBe(1);
  });

  it("that the issuer did not sign counts for nothing and is reported", async () => {
    const lines = await proxyLog("pod-1", 1);
    const { podUid, chain, seq, hash } = lastOf(lines);
    const claims = { pod: podUid, chain, seq, hash };
    const own = { ...(await generateSigningKey("key-1")), kid: key.kid };
    const encode = (value: object) => Buffer.from(JSON.stringify(value)).toString("base64url");
    const header = { kid: key.kid, typ: "drover-checkpoint+jwt" };
    const common = { iss: "drover-issuer", aud: "drover-audit", iat: 1 };
    const times = { nowMs: Date.now(), lifeSeconds: 600 };
    const forgeries = {
      "by a key of the same name": await signCheckpoint(own, { ...claims, podUid, signedAt: 0 }),
      "by nobody": `${encode({ ...header, alg: "none" })}.${encode({ ...common, ...claims })}.`,
      "with the public key as a password": await new SignJWT({ ...common, ...claims })
        .setProtectedHeader({ ...header, alg: "HS256" })
        .sign(Buffer.from(String(key.publicJwk.x))),
      "as a token of another kind": await signToken(key, "drover-audit", claims, times),
      "as it stood in Redis before": [chain, podUid, seq, hash].join(" "),
    };

    for (const [name, forgery] of Object.entries(forgeries)) {
      const { code, output } = await verify(lines, { entries: [forgery] });
      expect([name, code, output]).toEqual([
        name,
        1,
        expect.stringContaining("1 lines that are no good checkpoint"),
      ]);
    }
  });

  it("cannot be taken away or replaced by a proxy's own user of Redis", async () => {
    const lines = await proxyLog("pod-1", 2);

    for (const user of ["proxy", "edge"] as const) {
      const connection = redis.connect(user);
      for (const [command, ...args] of [
        ["XADD", "drover:px:audit", "MAXLEN", "0", "*", "checkpoint", "forged"],
        ["XTRIM", "drover:px:audit", "MAXLEN", "0"],
        ["DEL", "drover:px:audit"],
        ["SET", "drover:px:audit", "1"],
      ] as const) {
        await expect(connection.call(command, ...args)).rejects.toThrow(/NOPERM/);
      }
    }
    expect((await verify(lines, {})).code).toBe(0);
  });

  it("that was trimmed away leaves a chain without one", async () => {
    const lines = [...(await proxyLog("pod-1", 2)), ...(await proxyLog("pod-2", 2))];
    await admin.xtrim("drover:px:audit", "MAXLEN", 1);

    const { code, output } = await verify(lines, {});

    expect(output).toContain("of pod pod-1 has no checkpoint");
    expect(code).toBe(1);
  });

  it("is given to one pod some times a minute, so that it pushes out nobody else's", async () => {
    const store = { kept: 0 };
    const checkpoints = new Checkpoints({
      key,
      namespace: NAMESPACE,
      store: {
        appendCheckpoint: async () => {
          store.kept += 1;
        },
      },
      clock: systemClock,
    });
    const keep = async (podUid: string) =>
      await checkpoints.keep(wanted, { podUid, serviceAccount: `${NAMESPACE}/drover-pool-a` });

    for (let each = 0; each < 30; each += 1) await keep("pod-1");

    await expect(keep("pod-1")).rejects.toMatchObject({ code: "LIMIT_EXCEEDED" });
    await keep("pod-2");
    expect(store.kept).toBe(31);
  });
});
