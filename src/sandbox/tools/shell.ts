import { type ChildProcess, spawn } from "node:child_process";
import { randomUUID } from "node:crypto";
import {
  closeSync,
  constants,
  mkdirSync,
  openSync,
  readdirSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { Socket } from "node:net";
import { join } from "node:path";
import type { Clock } from "../../runtime/clock.ts";
import { AppError } from "../../runtime/errors.ts";
import { describeSpawnError, killAll, spawned } from "../processes.ts";
import { Handover, makePipes, OutputPipe, SignalPipe } from "./pipes.ts";

/**
 * A persistent bash whose loop is bash's own reading of a script: the script is a pipe, and each
 * command adds one line to it. So there is no loop made of words that a command could redefine, and a
 * line is read once whatever the command before it did to the shell. The line
 *
 *   \. RUN/take </dev/null >RUN/ID.out 2>&1; >RUN/ID.end."$?"; >RUN/ID.end
 *
 * reads from a pipe that is filled once, so a command runs once at most, and we know whether the
 * shell has taken it. What it finds there leads to the file with the command, which is whole before:
 * a daemon that dies while it writes must not leave half a command to be run. The end is told by two
 * redirections, which have no word either: the first leaves the exit code as the name of a file, the
 * second closes a pipe that we watch. The backslash keeps an alias out. A function with the name `.`
 * can keep the shell from taking the command; then it is given to a new shell.
 *
 * Each command has an output pipe of its own. So a command is over when bash says so, not when the
 * last holder of its output is; what background children of an earlier command print never mixes
 * into a later one (it is read and dropped, so that they are not blocked or killed by it); and
 * nothing a command prints can pass for the end of it.
 *
 * We do not use the SDK's BashSession: it holds one output pipe for all commands, drops what was
 * printed before a time-out, keeps no head of a large output, and does not reach children that
 * called setsid.
 */
export interface ShellOptions {
  workspace: string;
  env: Record<string, string>;
  /** Folder for the pipes, private to the daemon; emptied for each new shell. */
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
  /** No exit code: it could not be noted, because the disk is full or the folder is gone. */
  | { how: "finished"; exitCode: number | undefined }
  /** The shell itself ended: `exit`, `exec`, a failing command under `set -e`, a signal. */
  | { how: "shell-ended"; exitCode: number | null; signal: string | null }
  /** The command is over, and the shell is in a state in which it cannot say so (`set -n`). */
  | { how: "unreported" }
  | { how: "timed-out" }
  | { how: "aborted" }
  | { how: "not-run" };

/** The shell raises its own OOM score, so that the kernel takes it and its children before the daemon. */
const FIRST_LINE = "{ echo 1000 >/proc/self/oom_score_adj; } 2>/dev/null\n";
/** A shell that is well takes a command within milliseconds. */
const TAKE_MS = 15_000;
/** When a command runs this long, we look whether the shell has forgotten to say that it is over. */
const PROBE_AFTER_MS = 2000;
/** Between the shell's reading on and the report that comes before it. */
const REPORT_GRACE_MS = 1000;
/**
 * A comment larger than a pipe holds: it can be written to its end only when the shell reads its
 * script again, in whatever state it is.
 */
const PROBE = `#${"-".repeat(131_072)}\n`;

interface Running {
  child: ChildProcess;
  script: Socket;
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

  /**
   * True, once, after a shell has gone with its state and it was no command that ended it: it died
   * between two commands, or did not take the next one.
   */
  takeLoss(): boolean {
    const lost = this.#lost;
    this.#lost = false;
    return lost;
  }

  /**
   * Runs one command, once; one at a time. Whatever ends it other than bash itself also ends the
   * shell and everything it started. Throws UNAVAILABLE when no process can be started.
   */
  async run(command: ShellCommand): Promise<ShellEnd> {
    const isNew = this.#running === undefined;
    const end = await this.#give(command);
    if (end.how !== "not-run" || isNew || command.signal.aborted) return end;
    this.#lost = true;
    return await this.#give(command);
  }

  /** Kills the shell and everything that belongs to the sandbox. */
  async kill(): Promise<void> {
    await this.#kill(this.#running);
  }

  async #kill(shell: Running | undefined): Promise<void> {
    this.#running = undefined;
    await killAll(this.#options.clock, shell?.child.pid, this.#options.sandboxId);
    shell?.script.destroy();
  }

  async #give(command: ShellCommand): Promise<ShellEnd> {
    const { runDir, clock } = this.#options;
    const shell = (this.#running ??= await this.#start());
    const files = filesOf(runDir);
    writeCommand(files.command, command.command);
    rmSync(files.take, { force: true });
    await makePipes(files.take, files.output, files.end);
    const text = new Handover(files.take, `\\. ${quoted(files.command)}\n`);
    const output = new OutputPipe(files.output, command.onOutput);
    const ended = new SignalPipe(files.end);
    const limits = this.#limits(shell, command, text);
    this.#idle = false;
    try {
      shell.script.write(scriptLine(files));
      void text.offer(clock);
      const finished = ended.reached.then((): ShellEnd => {
        return { how: "finished", exitCode: takeExitCode(runDir, files.end) };
      });
      const end = await Promise.race([finished, shell.ended, limits.reached]);
      if (end.how !== "finished" || !text.taken) await this.#kill(shell);
      return text.taken || end.how === "aborted" ? end : { how: "not-run" };
    } finally {
      this.#idle = true;
      limits.clear();
      text.withdraw();
      rmSync(files.command, { force: true });
      output.finish();
      ended.close();
    }
  }

  #limits(
    shell: Running,
    { timeoutMs, signal }: ShellCommand,
    text: Handover,
  ): { reached: Promise<ShellEnd>; clear: () => void } {
    const { clock } = this.#options;
    const { promise, resolve } = Promise.withResolvers<ShellEnd>();
    const unreported = () => resolve({ how: "unreported" });
    let stopGrace = () => {};
    const probe = () =>
      shell.script.write(PROBE, () => {
        stopGrace = clock.timer(REPORT_GRACE_MS, unreported);
      });
    const timers = [
      clock.timer(timeoutMs, () => resolve({ how: "timed-out" })),
      clock.timer(TAKE_MS, () => {
        if (!text.taken) resolve({ how: "not-run" });
      }),
      clock.timer(PROBE_AFTER_MS, probe),
    ];
    const onAbort = () => resolve({ how: "aborted" });
    if (signal.aborted) onAbort();
    signal.addEventListener("abort", onAbort, { once: true });
    return {
      reached: promise,
      clear: () => {
        for (const stop of [...timers, stopGrace]) stop();
        signal.removeEventListener("abort", onAbort);
      },
    };
  }

  async #start(): Promise<Running> {
    const { workspace, env, runDir } = this.#options;
    // The workspace may have been removed by a command; a shell needs a place to start in.
    mkdirSync(workspace, { recursive: true });
    rmSync(runDir, { recursive: true, force: true });
    mkdirSync(runDir, { recursive: true, mode: 0o700 });
    const path = join(runDir, "script");
    await makePipes(path);
    // For both directions: so it can be opened before the shell reads it, and breaks with no shell.
    const fd = openSync(path, constants.O_RDWR | constants.O_NONBLOCK);
    // Bash keeps what it reads its script from away from commands, and moves it when one wants its number.
    const child = spawn("/bin/bash", ["--noprofile", "--norc", path], {
      cwd: workspace,
      env,
      // A session and process group of its own: one kill reaches the foreground job.
      detached: true,
      stdio: "ignore",
    });
    const ended = new Promise<ShellEnd>((resolve) => {
      child.once("exit", (exitCode, signal) => resolve({ how: "shell-ended", exitCode, signal }));
    });
    try {
      await spawned(child);
    } catch (error) {
      closeSync(fd);
      throw error;
    }
    const script = new Socket({ fd, readable: false, writable: true });
    script.on("error", () => {});
    script.unref();
    script.write(FIRST_LINE);
    const running: Running = { child, script, ended };
    void ended.then(() => {
      if (this.#running !== running) return;
      this.#running = undefined;
      this.#lost = this.#idle;
      script.destroy();
    });
    return running;
  }
}

interface CommandFiles {
  command: string;
  take: string;
  output: string;
  end: string;
}

/** Bash names the file of the command in its messages: that is why it has a plain name. */
function filesOf(runDir: string): CommandFiles {
  const own = join(runDir, randomUUID());
  return {
    command: join(runDir, "bash"),
    take: join(runDir, "take"),
    output: `${own}.out`,
    end: `${own}.end`,
  };
}

function writeCommand(path: string, text: string): void {
  try {
    writeFileSync(path, text, { mode: 0o600 });
  } catch (cause) {
    const why = describeSpawnError(cause);
    throw new AppError("UNAVAILABLE", `the command cannot be started: ${why}`, { cause });
  }
}

function scriptLine({ take, output, end }: CommandFiles): string {
  const run = `\\. ${quoted(take)} </dev/null >${quoted(output)} 2>&1`;
  return `${run}; >${quoted(`${end}.`)}"$?"; >${quoted(end)}\n`;
}

function quoted(path: string): string {
  return `'${path.replaceAll("'", "'\\''")}'`;
}

/** The exit code that the shell left as the name of a file beside the pipe; removes the file. */
function takeExitCode(runDir: string, end: string): number | undefined {
  try {
    for (const name of readdirSync(runDir)) {
      const path = join(runDir, name);
      if (!path.startsWith(`${end}.`)) continue;
      rmSync(path, { force: true });
      return Number(path.slice(end.length + 1));
    }
  } catch {
    // A command removed the folder.
  }
  return undefined;
}
