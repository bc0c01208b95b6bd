import { type ChildProcess, execFile, spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, it } from "@jest/globals";
import { createSelfSignedCertificate } from "../../../src/operator/issuer/certificate.ts";
import { createIssuer } from "../../../src/operator/issuer/issuer.ts";
import { createIssuerServer } from "../../../src/operator/issuer/server.ts";
import { ISSUER_TLS_NAME } from "../../../src/protocol/proxy-api.ts";
import { AUDIENCES, generateSigningKey, signToken } from "../../../src/protocol/tokens.ts";
import { systemClock } from "../../../src/runtime/clock.ts";
import {
  GIT_DEFAULTS,
  gitEnvironment,
  gitFiles,
  renderGitConfig,
} from "../../../src/sandbox/git-config.ts";
import type { SessionStore } from "../../../src/sessions/session-log.ts";
import { newRef, newSession } from "../../builders/sessions.ts";
import { aSnapshot } from "../../builders/snapshot.ts";
import { Cleanups } from "../../cleanups.ts";
import { eventually } from "../../eventually.ts";
import { freePort } from "../../servers/free-ports.ts";
import { delayed, GitHost } from "../../servers/git-host.ts";
import { startRedis } from "../../servers/redis-server.ts";
import { openRedisStore } from "../../servers/redis-store.ts";

const run = promisify(execFile);
const SANDBOX = "sandbox-1";
const cleanups = new Cleanups();
const ref = newRef();
let host: GitHost;
let store: SessionStore;
let env: Record<string, string>;
let home: string;
let edge: ChildProcess;
let output: string;
let exit: Promise<number | null>;

beforeAll(async () => {
  host = await GitHost.start();
  cleanups.add(async () => await host.close());
  await host.addRepository("team/app");
  const redis = await startRedis();
  cleanups.add(async () => await redis.stop());
  store = await openRedisStore({ url: redis.url });
  cleanups.add(async () => await store.close());
  const url = host.repositoryUrl("team/app");
  const repositories = [{ name: "app", url, pushBranches: ["agent/**"] }];
  const snapshot = aSnapshot({ sessionId: ref.id, tenant: ref.tenant, repositories });
  await store.log.createSession(newSession(ref, { snapshot }));
  const claims = { hand: "default", ip: "127.0.0.1" };
  await store.operator.bindSandbox(SANDBOX, {
    sessionId: ref.id,
    tenant: ref.tenant,
    generation: 1,
    ...claims,
  });

  home = await mkdtemp(join(tmpdir(), "drover-edge-process-"));
  cleanups.add(async () => await rm(home, { recursive: true, force: true }));
  const key = await generateSigningKey("key-1");
  const tls = createSelfSignedCertificate(ISSUER_TLS_NAME, Date.now());
  const issuer = createIssuerServer({
    issuer: createIssuer({
      key,
      namespace: "drover-system",
      leases: store.ports,
      snapshots: store.ports,
      bindings: store.ports,
      clock: systemClock,
    }),
    checkpoints: { keep: async () => {} },
    reviewer: {
      review: async () => ({ podUid: "edge-1", serviceAccount: "drover-system/drover-edge" }),
    },
    tls,
    onIssued: () => {},
  });
  const issuerUrl = await issuer.listen({ host: "127.0.0.1", port: 0 });
  cleanups.add(async () => await issuer.close());
  await writeFile(join(home, "issuer.crt"), tls.cert);
  const [port, healthPort] = [await freePort(), await freePort()];
  startEdge({
    DROVER_EDGE_PORT: String(port),
    DROVER_EDGE_HOST: "127.0.0.1",
    DROVER_PROXY_HEALTH_PORT: String(healthPort),
    DROVER_PROXY_HEALTH_HOST: "127.0.0.1",
    DROVER_POD_UID: "edge-1",
    DROVER_ISSUER_URL: issuerUrl,
    DROVER_ISSUER_CERTIFICATE_FILE: join(home, "issuer.crt"),
    DROVER_API_CA_FILE: join(home, "issuer.crt"),
    DROVER_REDIS_URL: redis.url,
    DROVER_IN_CLUSTER_SERVERS: host.authority,
  });
  await untilReady(healthPort);
  const sandboxToken = await signToken(
    key,
    AUDIENCES.sandbox,
    { sub: ref.id, ten: ref.tenant, gen: 1, sbx: SANDBOX, ...claims },
    { nowMs: Date.now(), lifeSeconds: 600 },
  );
  env = await sandboxEnv(`http://127.0.0.1:${port}`, sandboxToken, url);
});
afterAll(async () => await cleanups.run());

function startEdge(settings: Record<string, string>): void {
  output = "";
  edge = spawn(process.execPath, ["src/cmd/edge.ts"], {
    env: settings,
    stdio: ["ignore", "pipe", "pipe"],
  });
  exit = new Promise((resolve) => edge.once("exit", resolve));
  cleanups.add(async () => {
    edge.kill("SIGKILL");
    await exit;
  });
  for (const stream of [edge.stdout, edge.stderr]) {
    stream?.on("data", (chunk: Buffer) => {
      output += chunk.toString();
    });
  }
}

async function untilReady(port: number): Promise<void> {
  const deadline = Date.now() + 30_000;
  for (;;) {
    const answer = await fetch(`http://127.0.0.1:${port}/readyz`).catch(() => undefined);
    if (answer?.status === 200) return;
    if (Date.now() > deadline) throw new Error(`the edge is not ready: ${output}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

async function sandboxEnv(edgeUrl: string, sandboxToken: string, url: string) {
  const files = gitFiles(join(home, ".state"));
  await mkdir(dirname(files.transport), { recursive: true });
  await writeFile(files.defaults, GIT_DEFAULTS);
  const repositories = [{ name: "app", url, path: "app" }];
  await writeFile(files.transport, renderGitConfig({ edgeUrl, sandboxToken, repositories }));
  return { PATH: process.env["PATH"] ?? "", HOME: home, ...gitEnvironment(files) };
}

async function git(...args: string[]): Promise<string> {
  const { stdout } = await run("git", args, { cwd: home, env });
  return stdout.trim();
}

describe("drover edge", () => {
  it("takes a large push, and gives it back", async () => {
    await git(
      "clone",
      "--quiet",
      "-c",
      "core.compression=0",
      host.repositoryUrl("team/app"),
      "app",
    );
    await writeFile(join(home, "app", "big"), randomBytes(32 * 1024 * 1024));
    await git("-C", "app", "add", "big");
    await git("-C", "app", "commit", "--quiet", "-m", "Add big");

    await git("-C", "app", "push", "--quiet", "origin", "HEAD:agent/big");
    await git("clone", "--quiet", "--branch", "agent/big", host.repositoryUrl("team/app"), "again");

    expect(await git("-C", "again", "rev-parse", "HEAD")).toBe(
      await host.read("team/app", "rev-parse", "agent/big"),
    );
  });

  it("a request whose sandbox has left ends at the host, too", async () => {
    let ended = false;
    host.intercept = async (_request, response) => {
      await new Promise<void>((resolve) => response.once("close", resolve));
      ended = true;
      return true;
    };
    // In a group of its own, because git has a process of its own for http.
    const options = { cwd: home, env, detached: true };
    const listing = spawn("git", ["ls-remote", host.repositoryUrl("team/app")], options);
    const before = host.received.length;
    await eventually("the request at the host", () => host.received.length > before);

    process.kill(-(listing.pid ?? 0), "SIGKILL");

    await eventually("the end of the request at the host", () => ended);
    host.intercept = undefined;
    expect(listing.pid).toBeDefined();
  });

  it("a fetch that runs at SIGTERM ends well, and then the process does", async () => {
    const before = host.received.length;
    host.intercept = delayed(1000);
    const cloning = git("clone", "--quiet", host.repositoryUrl("team/app"), "last");
    await eventually("the fetch of the pack", () =>
      host.received.slice(before).some(({ method }) => method === "POST"),
    );

    edge.kill("SIGTERM");

    // Git's later requests come on connections of their own and may be refused; the one that runs ends.
    await cloning.catch(() => {});
    expect(await exit).toBe(0);
    expect(output).toContain('"role":"git"');
    expect(output).toContain('"rule":"repositories"');
  });
});

it("drover edge lists every setting it lacks and exits with 2", async () => {
  startEdge({});

  expect(await exit).toBe(2);
  for (const name of ["DROVER_POD_UID", "DROVER_ISSUER_URL", "DROVER_REDIS_URL"]) {
    expect(output).toContain(name);
  }
});
