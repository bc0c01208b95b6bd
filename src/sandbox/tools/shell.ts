import { type ChildProcess, spawn } from "node:child_process";
import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { closeSync, constants, mkdirSync, openSync, readSync, rmSync } from "node:fs";
import { Socket } from "node:net";
import { join } from "node:path";
import type { Readable, Writable } from "node:stream";
import type { Clock } from "../../runtime/clock.ts";
import { AppError } from "../../runtime/errors.ts";
import { describeSpawnError, killAll } from "../processes.ts";

/**
 * A persistent bash. Commands and exit codes go over two private channels; each command gets an
 * output pipe of its own. So a command is over when bash says so, not when the last holder of its
 * output is; what background children of an earlier command print never mixes into a later one (it
 * is read and dropped, so that they are not blocked or killed by it); and nothing a command prints
 * can pass for the end of it.
 *
 * We do not use the SDK's BashSession: it holds one output pipe for all commands, drops what was
 * printed before a time-out, keeps no head of a large output, and does not reach children that
 * called setsid.
 */
export interface ShellOptions {
  workspace: string;
  env: Record<string, string>;
  /** Folder for the output pipes, private to the daemon. */
  runDir: string;
  sandboxId: string;
  clock: Clock;
}

export interface ShellCommand {
  command: string;
  timeoutMs: number;
  signal: AbortSignal;
  /** The buffer is reused after the call. */
  onOutput: (chunk: Buffer) => void;
}

export type ShellEnd =
  | { how: "finished"; exitCode: number }
  /** The shell itself ended: `exit`, `exec`, a failing command under `set -e`, a signal. */
  | { how: "shell-ended"; exitCode: number | null; signal: string | null }
  | { how: "timed-out" }
  | { how: "aborted" };

/**
 * Descriptors 198 and 199 are far from those scripts use, and closed for commands. The shell raises
 * its own OOM score, so that the kernel takes it and its children before the daemon.
 */
const LOOP = `
exec 198>&4 199<&3 3<&- 4>&-
{ echo 1000 >/proc/self/oom_score_adj; } 2>/dev/null
while IFS= read -r -d '' -u 199 __drover_id &&
      IFS= read -r -d '' -u 199 __drover_pipe &&
      IFS= read -r -d '' -u 199 __drover_command; do
  eval "$__drover_command" </dev/null >"$__drover_pipe" 2>&1 198>&- 199<&-
  builtin printf '%s %d\\n' "$__drover_id" "$?" >&198
done
`;

const CHUNK_BYTES = 65_536;

interface Running {
  child: ChildProcess;
  commands: Writable;
  /** Called with each line the shell reports. */
  onReport: (line: string) => void;
  ended: Promise<ShellEnd>;
}

export class Shell {
  readonly #options: ShellOptions;
  #running: Running | undefined;
  #idle = true;
  #lost = false;

  constructor(options: ShellOptions) {
    this.#options = options;
  }

  /** True, once, after a shell ended between two commands and took its state with it. */
  takeLoss(): boolean {
    const lost = this.#lost;
    this.#lost = false;
    return lost;
  }

  /**
   * Runs one command; one at a time. Whatever ends it other than bash itself also ends the shell and
   * everything it started. Throws UNAVAILABLE when no process can be started.
   */
  async run(command: ShellCommand): Promise<ShellEnd> {
    const shell = (this.#running ??= await this.#start());
    const pipe = await OutputPipe.open(this.#options.runDir, command.onOutput);
    const id = randomUUID();
    const reported = new Promise<ShellEnd>((resolve) => {
      shell.onReport = (line) => {
        const [which, code] = line.split(" ");
        if (which === id) resolve({ how: "finished", exitCode: Number(code) });
      };
    });
    const stop = this.#limits(command);
    this.#idle = false;
    try {
      shell.commands.write(`${id}\0${pipe.path}\0${command.command}\0`);
      const end = await Promise.race([reported, shell.ended, stop.reached]);
      if (end.how !== "finished") await this.#kill(shell);
      return end;
    } finally {
      this.#idle = true;
      stop.clear();
      pipe.finish();
    }
  }

  /** Kills the shell and everything that belongs to the sandbox. */
  async kill(): Promise<void> {
    await this.#kill(this.#running);
  }

  async #kill(shell: Running | undefined): Promise<void> {
    this.#running = undefined;
    await killAll(this.#options.clock, shell?.child.pid, this.#options.sandboxId);
  }

  #limits(command: ShellCommand): { reached: Promise<ShellEnd>; clear: () => void } {
    const { promise, resolve } = Promise.withResolvers<ShellEnd>();
    const cancel = this.#options.clock.timer(command.timeoutMs, () =>
      resolve({ how: "timed-out" }),
    );
    const onAbort = () => resolve({ how: "aborted" });
    if (command.signal.aborted) onAbort();
    command.signal.addEventListener("abort", onAbort, { once: true });
    return {
      reached: promise,
      clear: () => {
        cancel();
        command.signal.removeEventListener("abort", onAbort);
      },
    };
  }

  async #start(): Promise<Running> {
    const { workspace, env } = this.#options;
    // The workspace may have been removed by a command; a shell needs a place to start in.
    mkdirSync(workspace, { recursive: true });
    const child = spawn("/bin/bash", ["--noprofile", "--norc", "-c", LOOP], {
      cwd: workspace,
      env,
      // A session and process group of its own: one kill reaches the foreground job.
      detached: true,
      stdio: ["ignore", "ignore", "ignore", "pipe", "pipe"],
    });
    const ended = new Promise<ShellEnd>((resolve) => {
      child.once("exit", (exitCode, signal) => resolve({ how: "shell-ended", exitCode, signal }));
    });
    await spawned(child);
    const [, , , commands, reports] = child.stdio;
    if (!(commands instanceof Socket && reports instanceof Socket)) {
      throw new AppError("INTERNAL", "the shell was started without its channels");
    }
    const running: Running = { child, commands, ended, onReport: () => {} };
    // A shell that dies while we write is seen by `exit`.
    commands.on("error", () => {});
    reports.on("error", () => {});
    readLines(reports, (line) => running.onReport(line));
    void ended.then(() => {
      if (this.#running !== running) return;
      this.#running = undefined;
      this.#lost = this.#idle;
    });
    return running;
  }
}

async function spawned(child: ChildProcess): Promise<void> {
  try {
    await once(child, "spawn");
  } catch (error) {
    const why = describeSpawnError(error);
    throw new AppError("UNAVAILABLE", `the command cannot be started: ${why}`, { cause: error });
  }
}

function readLines(stream: Readable, onLine: (line: string) => void): void {
  let rest = "";
  stream.setEncoding("utf8");
  stream.on("data", (text: string) => {
    const lines = (rest + text).split("\n");
    rest = lines.pop() ?? "";
    for (const line of lines) onLine(line);
  });
}

/** A named pipe for the output of one command, read with one reused buffer. */
class OutputPipe {
  readonly path: string;
  readonly #reader: number;
  /** Keeps the pipe from ending before the shell has opened it. */
  readonly #writer: number;
  readonly #onOutput: (chunk: Buffer) => void;
  #finished = false;
  #closed = false;

  private constructor(path: string, onOutput: (chunk: Buffer) => void) {
    this.path = path;
    this.#onOutput = onOutput;
    this.#reader = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
    this.#writer = openSync(path, constants.O_WRONLY | constants.O_NONBLOCK);
    const socket = new Socket({
      fd: this.#reader,
      readable: true,
      writable: false,
      onread: {
        buffer: Buffer.alloc(CHUNK_BYTES),
        callback: (count, buffer) => {
          if (!this.#finished) this.#onOutput(Buffer.from(buffer.buffer, buffer.byteOffset, count));
          return true;
        },
      },
    });
    // A pipe we cannot read any more gives no output; the command's end is reported elsewhere.
    socket.on("error", () => {});
    socket.on("close", () => {
      this.#closed = true;
    });
    socket.unref();
    socket.resume();
  }

  static async open(runDir: string, onOutput: (chunk: Buffer) => void): Promise<OutputPipe> {
    mkdirSync(runDir, { recursive: true, mode: 0o700 });
    const path = join(runDir, randomUUID());
    await makeFifo(path);
    return new OutputPipe(path, onOutput);
  }

  /**
   * Takes what the command has printed and nobody has read yet: at most a pipe's capacity, so that
   * background children that go on printing cannot hold the call. Later output is dropped.
   */
  finish(): void {
    const buffer = Buffer.alloc(CHUNK_BYTES);
    let left = CHUNK_BYTES;
    try {
      while (left > 0 && !this.#closed) {
        const count = readSync(this.#reader, buffer, 0, left, null);
        if (count === 0) break;
        left -= count;
        this.#onOutput(buffer.subarray(0, count));
      }
    } catch {
      // EAGAIN: the pipe is empty.
    }
    this.#finished = true;
    closeSync(this.#writer);
    rmSync(this.path, { force: true });
  }
}

/** Node cannot make a pipe that another process opens by name. */
async function makeFifo(path: string): Promise<void> {
  const child = spawn("mkfifo", ["-m", "600", path], { stdio: "ignore", env: {} });
  await spawned(child);
  const [code]: (number | null)[] = await once(child, "exit");
  if (code !== 0) {
    throw new AppError("UNAVAILABLE", "the command cannot be started: no pipe could be made");
  }
}
