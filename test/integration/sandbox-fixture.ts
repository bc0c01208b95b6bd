import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import type { Readable } from "node:stream";
import { type ExecuteResult, inputHash } from "../../src/protocol/sandbox-api.ts";
import { createSandboxClient, type SandboxClient } from "../../src/protocol/sandbox-client.ts";
import {
  AUDIENCES,
  generateSigningKey,
  type SigningKey,
  signToken,
} from "../../src/protocol/tokens.ts";
import { systemClock } from "../../src/runtime/clock.ts";
import { silentLogger } from "../../src/runtime/logger.ts";

/** Its own for each test process: a daemon kills all that carries its id when it starts. */
export const SANDBOX_ID = `sbx-test-${process.pid}`;
/** Set in the daemon's environment; no tool may ever see it. */
export const MARKER_SECRET = "marker-7f3a-do-not-show";

/** Made once; both parts of a key pair that the daemon trusts. */
const signingKey = generateSigningKey("test");

export const claims = {
  sub: "sesn_1",
  ten: "default",
  hand: "main",
  gen: 1,
  sbx: SANDBOX_ID,
  epoch: 1,
};

export interface TokenOptions {
  claims?: Partial<typeof claims>;
  audience?: string;
  nowMs?: number;
  key?: SigningKey;
}

export async function executeToken(options: TokenOptions = {}): Promise<string> {
  return await signToken(
    options.key ?? (await signingKey),
    options.audience ?? AUDIENCES.execute,
    { ...claims, ...options.claims },
    { nowMs: options.nowMs ?? Date.now(), lifeSeconds: 600 },
  );
}

/** What a daemon is told, and two secrets that it is not. */
export async function daemonEnvironment(
  folders: Pick<DaemonFixture, "workspace" | "journal">,
): Promise<Record<string, string>> {
  const { publicJwk } = await signingKey;
  return {
    PATH: process.env["PATH"] ?? "",
    DROVER_PUBLIC_KEYS: JSON.stringify({ keys: [publicJwk] }),
    DROVER_SANDBOX_ID: SANDBOX_ID,
    DROVER_SANDBOX_HOST: "127.0.0.1",
    DROVER_SANDBOX_PORT: "0",
    DROVER_WORKSPACE: folders.workspace,
    DROVER_JOURNAL_DIR: folders.journal,
    DROVER_PARENT_PIPE: "true",
    ANTHROPIC_API_KEY: MARKER_SECRET,
    SOME_SECRET: MARKER_SECRET,
  };
}

/** A real daemon as a child process, on folders that survive its restarts. */
export class DaemonFixture {
  readonly root = mkdtempSync(join(tmpdir(), "drover-sandbox-"));
  readonly workspace = join(this.root, "workspace");
  readonly journal = join(this.root, "journal");
  child: ChildProcess | undefined;
  address = "";
  /** All that the daemon has logged. */
  log = "";
  #calls = 0;

  async start(): Promise<void> {
    const child = spawn(process.execPath, ["--disable-sigusr1", "src/cmd/sandbox.ts"], {
      env: await daemonEnvironment(this),
      stdio: ["pipe", "pipe", "pipe"],
    });
    this.child = child;
    for (const stream of [child.stdout, child.stderr]) {
      stream.on("data", (chunk: Buffer) => {
        this.log += chunk.toString("utf8");
      });
    }
    await this.listening(child.stdout);
  }

  /** Reads the daemon's address from what it prints. */
  protected async listening(output: Readable): Promise<void> {
    for await (const line of createInterface({ input: output })) {
      const port = /^\{"listening":(\d+)\}$/.exec(line)?.[1];
      if (port === undefined) continue;
      output.resume();
      this.address = `127.0.0.1:${port}`;
      return;
    }
    throw new Error(`the daemon did not start: ${this.log}`);
  }

  /** Ends the daemon with this signal and waits until it is gone. */
  async kill(signal: NodeJS.Signals): Promise<number | null> {
    const child = this.child;
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return null;
    const exited = once(child, "exit");
    child.kill(signal);
    const [code]: (number | null)[] = await exited;
    return code ?? null;
  }

  async remove(): Promise<void> {
    await this.kill("SIGTERM");
    rmSync(this.root, { recursive: true, force: true });
  }

  /** Resident memory of the daemon in MiB. */
  residentMib(): number {
    const status = readFileSync(`/proc/${this.child?.pid}/status`, "utf8");
    return Number(/VmRSS:\s+(\d+)/.exec(status)?.[1]) / 1024;
  }

  client(token: TokenOptions = {}): SandboxClient {
    return createSandboxClient({
      fetch,
      clock: systemClock,
      logger: silentLogger,
      token: () => executeToken(token),
    });
  }

  request(name: string, input: Record<string, unknown>, id = `toolu_${++this.#calls}`, epoch = 1) {
    return { id, name, input, inputHash: inputHash(name, input), epoch };
  }

  /** Runs one call to its end. */
  async call(name: string, input: Record<string, unknown>, id?: string): Promise<ExecuteResult> {
    const response = await this.client().execute(this.address, this.request(name, input, id));
    if (response.result === undefined) throw new Error("no result");
    return response.result;
  }

  async bash(command: string, timeoutMs = 20_000): Promise<ExecuteResult> {
    return await this.call("bash", { command, timeout_ms: timeoutMs });
  }
}
