import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { chmodSync, chownSync, copyFileSync, mkdirSync } from "node:fs";
import { join } from "node:path";
import { DAEMON_UID, SANDBOX_UID } from "../../../src/operator/sandbox/pod.ts";
import { DaemonFixture, daemonEnvironment } from "../sandbox-fixture.ts";

/**
 * Daemon and runner as in a pod: two users, a socket that the tools' user cannot replace, and a runner
 * whose program nobody but root may read. Process numbers and the network are the machine's here, so
 * code in the sandbox sees more than in a pod. Needs root, to have two users.
 */
export class SplitSandbox extends DaemonFixture {
  readonly #control = join(this.root, "control");
  readonly #state = join(this.root, "run");
  readonly #programs = join(this.root, "bin");
  readonly socket = join(this.#control, "runner.sock");
  runner: ChildProcess | undefined;
  /** How often a runner was started. */
  starts = 0;
  #stopping = false;

  override async start(): Promise<void> {
    chmodSync(this.root, 0o755);
    for (const [folder, user] of [
      [this.#control, DAEMON_UID],
      [this.journal, DAEMON_UID],
      [this.workspace, SANDBOX_UID],
      [this.#state, SANDBOX_UID],
    ] as const) {
      mkdirSync(folder, { recursive: true });
      chownSync(folder, user, user);
    }
    mkdirSync(this.#programs, { recursive: true });
    copyFileSync(process.execPath, join(this.#programs, "node"));
    chmodSync(join(this.#programs, "node"), 0o711);
    const child = this.#spawn(DAEMON_UID, "src/cmd/sandbox.ts", {
      ...(await daemonEnvironment(this)),
      DROVER_PARENT_PIPE: "false",
      DROVER_RUNNER_SOCKET: this.socket,
    });
    this.child = child;
    this.#startRunner();
    if (child.stdout === null) throw new Error("the daemon has no output");
    await this.listening(child.stdout);
  }

  override async remove(): Promise<void> {
    this.#stopping = true;
    this.runner?.kill("SIGKILL");
    await super.remove();
  }

  /** As a kubelet does: it is started again whenever it ends. */
  #startRunner(): void {
    const runner = this.#spawn(SANDBOX_UID, "src/cmd/sandbox-runner.ts", {
      PATH: process.env["PATH"] ?? "",
      DROVER_SANDBOX_ID: `${process.pid}-split`,
      DROVER_WORKSPACE: this.workspace,
      DROVER_RUNNER_DIR: this.#state,
      DROVER_RUNNER_SOCKET: this.socket,
    });
    this.runner = runner;
    this.starts += 1;
    void once(runner, "exit").then(() => {
      if (!this.#stopping) this.#startRunner();
    });
  }

  #spawn(user: number, file: string, env: Record<string, string>): ChildProcess {
    // By way of a shell, which has no rights of root any more when it starts Node: as in a container.
    const program = `exec ${join(this.#programs, "node")} --disable-sigusr1 ${file}`;
    const child = spawn("/bin/sh", ["-c", program], {
      env,
      uid: user,
      gid: user,
      stdio: ["ignore", "pipe", "pipe"],
    });
    for (const stream of [child.stdout, child.stderr]) {
      stream.on("data", (chunk: Buffer) => {
        this.log += chunk.toString("utf8");
      });
    }
    return child;
  }
}
