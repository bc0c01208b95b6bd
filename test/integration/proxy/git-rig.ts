import { execFile } from "node:child_process";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import type { CredentialSource } from "../../../src/credentials/credential-source.ts";
import { credentialValue } from "../../../src/credentials/credential-value.ts";
import type { BindingReader } from "../../../src/protocol/session-ports.ts";
import type { SessionSnapshot } from "../../../src/protocol/snapshot.ts";
import {
  AUDIENCES,
  generateSigningKey,
  type SandboxClaims,
  type SigningKey,
  signToken,
} from "../../../src/protocol/tokens.ts";
import type { ServedUse } from "../../../src/proxy/audit.ts";
import { createEdgeServer, type EdgeServer } from "../../../src/proxy/edge/server.ts";
import { createProxyMetrics, EDGE_ROLES } from "../../../src/proxy/metrics.ts";
import type { CredentialReport } from "../../../src/proxy/reported-read.ts";
import { GIT_SIZES, type GitSizes } from "../../../src/proxy/roles/git/limits.ts";
import { type Clock, systemClock } from "../../../src/runtime/clock.ts";
import { AppError } from "../../../src/runtime/errors.ts";
import { createLogger } from "../../../src/runtime/logger.ts";
import { Registry } from "../../../src/runtime/metrics.ts";
import {
  GIT_DEFAULTS,
  gitEnvironment,
  gitFiles,
  renderGitConfig,
} from "../../../src/sandbox/git-config.ts";
import { aSnapshot } from "../../builders/snapshot.ts";
import type { Cleanups } from "../../cleanups.ts";
import { GitHost } from "../../servers/git-host.ts";

const SANDBOX = "sandbox-1";
const SESSION = aSnapshot().sessionId;
const TENANT = "team-a";

type Binding = NonNullable<Awaited<ReturnType<BindingReader["readBinding"]>>>;

export interface GitRigOptions {
  /** Repository `app` of the session; its token is in entry `app` of vault `code` unless `entries` says otherwise. */
  token?: string;
  pushBranches?: string[];
  protectedBranches?: string[];
  entries?: SessionSnapshot["vaults"][number]["entries"];
  repositories?: (host: GitHost) => SessionSnapshot["repositories"];
  /** Instead of the git host's own address. */
  inClusterServers?: (host: GitHost) => string[];
  sizes?: Partial<GitSizes>;
  maxInFlight?: number;
  /** Instead of the system's. */
  timer?: Clock["timer"];
}

export interface GitRun {
  code: number;
  stdout: string;
  stderr: string;
}

/** A running edge before a real git host, and git as it is set up in a sandbox. */
export class GitRig {
  readonly host: GitHost;
  readonly edge: EdgeServer;
  readonly url: string;
  readonly port: number;
  /** The sandbox: home, git settings and clones. */
  readonly home: string;
  readonly token: string;
  readonly key: SigningKey;
  readonly bindings: Map<string, Binding>;
  /** `<Secret>/<key>` → value: what the session's vaults refer to. */
  readonly secrets = new Map<string, string>();
  readonly logLines: string[];
  readonly uses: ServedUse[];
  readonly reports: CredentialReport[];
  readonly registry: Registry;
  readonly snapshot: SessionSnapshot;
  /** Of the session. */
  terminated = false;
  /** Milliseconds by which the edge's clock is ahead: what it holds gets older at once. */
  ahead = 0;

  static async start(cleanups: Cleanups, options: GitRigOptions = {}): Promise<GitRig> {
    const host = await GitHost.start();
    cleanups.add(async () => await host.close());
    await host.addRepository("team/app", {
      ...(options.token === undefined ? {} : { token: options.token }),
      protectedBranches: options.protectedBranches ?? [],
    });
    const home = await mkdtemp(join(tmpdir(), "drover-git-sandbox-"));
    cleanups.add(async () => await rm(home, { recursive: true, force: true }));
    const key = await generateSigningKey("key-1");
    const parts = { host, home, key, options };
    const rig = new GitRig(parts, await GitRig.#sandboxToken(key, {}));
    if (options.token !== undefined) rig.secrets.set("code/token", options.token);
    await rig.edge.loadKeys();
    (rig as { port: number }).port = await rig.edge.listen({ host: "127.0.0.1", port: 0 });
    (rig as { url: string }).url = `http://127.0.0.1:${rig.port}`;
    cleanups.add(async () => await rig.edge.close(AbortSignal.timeout(100)));
    await rig.#writeGitConfig();
    return rig;
  }

  private constructor(
    given: {
      host: GitHost;
      home: string;
      key: SigningKey;
      options: GitRigOptions;
    },
    token: string,
  ) {
    const { host, key, options } = given;
    this.host = host;
    this.home = given.home;
    this.key = key;
    this.token = token;
    this.url = "";
    this.port = 0;
    this.logLines = [];
    this.uses = [];
    this.reports = [];
    this.registry = new Registry();
    const claims = claimsOf({});
    this.bindings = new Map([
      [
        SANDBOX,
        {
          sessionId: SESSION,
          tenant: TENANT,
          hand: claims.hand,
          generation: claims.gen,
          ip: claims.ip,
        },
      ],
    ]);
    const snapshot = snapshotOf(host, options);
    this.snapshot = snapshot;
    this.edge = createEdgeServer({
      issuer: { keys: async () => ({ keys: [key.publicJwk] }) },
      bindings: { readBinding: async (id) => this.bindings.get(id) ?? null },
      leases: {
        readLease: async () => ({ token: "", epoch: 1, owner: "", terminated: this.terminated }),
      },
      snapshots: {
        readSnapshot: async (_tenant, id) => (id === snapshot.sessionId ? snapshot : null),
      },
      credentials: sourceOf(this.secrets),
      onCredentialRead: (report) => this.reports.push(report),
      inClusterServers: options.inClusterServers?.(host) ?? [host.authority],
      maxInFlight: options.maxInFlight ?? 256,
      requestsPerMinute: 10_000,
      audit: { check: () => {}, record: (use) => this.uses.push(use) },
      clock: {
        ...systemClock,
        monotonic: () => systemClock.monotonic() + this.ahead,
        timer: options.timer ?? ((ms, run) => systemClock.timer(ms, run)),
      },
      logger: createLogger({
        level: "debug",
        process: "edge",
        destination: { write: (line) => this.logLines.push(line) },
      }),
      metrics: createProxyMetrics(this.registry, EDGE_ROLES),
      ...(options.sizes === undefined ? {} : { sizes: { ...GIT_SIZES, ...options.sizes } }),
    });
  }

  /** A token of the issuer, with claims of the test. */
  async sandboxToken(claims: Partial<Omit<SandboxClaims, "exp">>): Promise<string> {
    return await GitRig.#sandboxToken(this.key, claims);
  }

  static async #sandboxToken(
    key: SigningKey,
    claims: Partial<Omit<SandboxClaims, "exp">>,
  ): Promise<string> {
    const times = { nowMs: Date.now(), lifeSeconds: 3600 };
    return await signToken(key, AUDIENCES.sandbox, { ...claimsOf(claims) }, times);
  }

  /** The URL people know. */
  get repositoryUrl(): string {
    return this.host.repositoryUrl("team/app");
  }

  /** What the daemon of a sandbox gives every process of its tools. */
  get gitEnv(): Record<string, string> {
    return {
      PATH: process.env["PATH"] ?? "",
      HOME: this.home,
      ...gitEnvironment(gitFiles(join(this.home, ".state"))),
    };
  }

  async #writeGitConfig(): Promise<void> {
    const { transport, defaults } = gitFiles(join(this.home, ".state"));
    await mkdir(dirname(transport), { recursive: true });
    await writeFile(defaults, GIT_DEFAULTS);
    const text = renderGitConfig({
      edgeUrl: this.url,
      sandboxToken: this.token,
      repositories: this.snapshot.repositories.map(({ name, url }) => ({ name, url, path: name })),
    });
    await writeFile(transport, text, { mode: 0o600 });
  }

  /** Real git in the sandbox; never throws for its exit code. */
  async git(args: readonly string[], env: Record<string, string> = {}): Promise<GitRun> {
    return await this.run("git", args, env);
  }

  async run(
    program: string,
    args: readonly string[],
    env: Record<string, string> = {},
  ): Promise<GitRun> {
    return await new Promise((resolve) => {
      const options = {
        cwd: this.home,
        env: { ...this.gitEnv, ...env },
        maxBuffer: 64 * 1024 * 1024,
        timeout: 50_000,
      };
      execFile(program, args, options, (error, stdout, stderr) => {
        const code = error === null ? 0 : Number(error.code ?? 1);
        resolve({ code, stdout, stderr });
      });
    });
  }

  /** The same, for what must work. */
  async ok(...args: string[]): Promise<string> {
    const { code, stdout, stderr } = await this.git(args);
    if (code !== 0) throw new Error(`git ${args.join(" ")} ended with ${code}: ${stderr}`);
    return stdout.trim();
  }

  async clone(folder = "app", ...options: string[]): Promise<string> {
    await this.ok("clone", "--quiet", ...options, this.repositoryUrl, folder);
    return join(this.home, folder);
  }

  /** A commit with one file. */
  async commit(folder: string, name: string, content: string | Uint8Array): Promise<void> {
    await writeFile(join(folder, name), content);
    await this.ok("-C", folder, "add", name);
    await this.ok("-C", folder, "commit", "--quiet", "-m", `Add ${name}`);
  }

  /** A request without git, as a hostile sandbox makes it. */
  async fetch(
    path: string,
    init: Omit<RequestInit, "headers"> = {},
    headers: Record<string, string> = {},
  ): Promise<Response> {
    return await fetch(`${this.url}${path}`, {
      redirect: "manual",
      ...init,
      headers: { authorization: `Bearer ${this.token}`, ...headers },
    });
  }

  async outcomes(): Promise<Record<string, number>> {
    const text = await this.registry.metrics();
    const lines = text.matchAll(/^drover_proxy_requests_total\{.*outcome="(\w+)"\} (\d+)$/gm);
    return Object.fromEntries(
      [...lines].map(([, outcome = "", count]) => [outcome, Number(count)]),
    );
  }
}

function claimsOf(changes: Partial<Omit<SandboxClaims, "exp">>): Omit<SandboxClaims, "exp"> {
  return {
    sub: SESSION,
    ten: TENANT,
    hand: "default",
    gen: 1,
    sbx: SANDBOX,
    ip: "127.0.0.1",
    ...changes,
  };
}

function snapshotOf(host: GitHost, options: GitRigOptions): SessionSnapshot {
  const entry = {
    name: "app",
    repositoryUrl: host.repositoryUrl("team/app"),
    secretRef: { name: "code", key: "token" },
    header: "Authorization",
    scheme: "Bearer",
  };
  const entries = options.entries ?? (options.token === undefined ? [] : [entry]);
  return aSnapshot({
    vaults: entries.length === 0 ? [] : [{ name: "code", uid: "vault-1", entries }],
    repositories: options.repositories?.(host) ?? [
      {
        name: "app",
        url: host.repositoryUrl("team/app"),
        pushBranches: options.pushBranches ?? ["agent/**"],
      },
    ],
  });
}

function sourceOf(secrets: ReadonlyMap<string, string>): CredentialSource {
  return {
    read: async (request) => {
      const { name, key } = request.entry.secretRef ?? { name: "", key: "" };
      const text = secrets.get(`${name}/${key}`);
      if (text === undefined) throw new AppError("CREDENTIAL_NOT_FOUND", "no such secret");
      return { value: credentialValue(request, text), version: "v1" };
    },
  };
}
