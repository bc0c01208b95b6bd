import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { readFile, writeFile } from "node:fs/promises";
import { createInterface } from "node:readline";
import { SANDBOX_ENV } from "../protocol/sandbox-api.ts";
import type { Jwks } from "../protocol/tokens.ts";
import { withDeadline } from "../runtime/abort.ts";
import type { Clock } from "../runtime/clock.ts";
import { AppError } from "../runtime/errors.ts";
import { isAlive, type ProcessIdentity, startOf } from "../runtime/process-identity.ts";

/** Folders and identity of one local sandbox. */
export interface SandboxPlace {
  sandboxId: string;
  workspace: string;
  journal: string;
  temporary: string;
  examples: string;
  /** File that names the daemon's process. */
  processRecord: string;
}

export interface SandboxProcess {
  /** host:port of the daemon. */
  address: string;
  /** Resolves when the daemon has ended, with a word on how. */
  ended: Promise<string>;
  stop(): Promise<void>;
}

/** Longer than the daemon itself waits for its runner, so that its own words are heard. */
const START_DEADLINE_MS = 40_000;
const STOP_GRACE_MS = 5000;
const SETUP_OUTPUT_CHARS = 2000;

/** The same small environment for set-up script and daemon: nothing of this process leaks in. */
function environment(place: SandboxPlace): Record<string, string> {
  return {
    PATH: "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    HOME: place.workspace,
    TMPDIR: place.temporary,
    LANG: "C.UTF-8",
    [SANDBOX_ENV.examples]: place.examples,
  };
}

/**
 * Starts the daemon (`command` = program and arguments) as a process group of its own, listening on
 * a free loopback port. It ends when this process ends: its standard input is our pipe.
 * Throws TIMEOUT when it does not say within 40 s where it listens, UNAVAILABLE when it ends before;
 * then nothing of it is left. `onSaid` gets what it writes to its standard error.
 */
export async function startSandboxProcess(
  command: readonly string[],
  place: SandboxPlace,
  publicKeys: Jwks,
  nodeDirectory: string,
  clock: Clock,
  onSaid: (line: string) => void,
): Promise<SandboxProcess> {
  await endPrevious(place.processRecord, clock);
  const [program = "", ...args] = command;
  const env = environment(place);
  const child = spawn(program, args, {
    cwd: place.workspace,
    detached: true,
    // Nothing of it is our terminal: what tools can reach of the daemon must not lead there.
    stdio: ["pipe", "pipe", "pipe"],
    env: {
      ...env,
      // Tools of an example may call `node`: the one that runs Drover.
      PATH: `${nodeDirectory}:${env["PATH"]}`,
      [SANDBOX_ENV.publicKeys]: JSON.stringify(publicKeys),
      [SANDBOX_ENV.sandboxId]: place.sandboxId,
      [SANDBOX_ENV.host]: "127.0.0.1",
      [SANDBOX_ENV.port]: "0",
      [SANDBOX_ENV.workspace]: place.workspace,
      [SANDBOX_ENV.journal]: place.journal,
      [SANDBOX_ENV.parentPipe]: "true",
    },
  });
  const ended = endOf(child);
  if (child.stderr !== null) createInterface({ input: child.stderr }).on("line", onSaid);
  let port: number;
  try {
    // Named before anything can be asked of it, so that the next start finds it.
    if (child.pid !== undefined) {
      const identity: ProcessIdentity = { pid: child.pid, started: await startOf(child.pid) };
      await writeFile(place.processRecord, JSON.stringify(identity));
    }
    port = await withDeadline(clock, START_DEADLINE_MS, "starting a sandbox", () =>
      Promise.race([listeningPort(child), ended.then(failToStart)]),
    );
  } catch (error) {
    // Nobody would hold it: neither it nor what it started may live on.
    killGroup(child.pid);
    await ended;
    throw error;
  }
  return {
    address: `127.0.0.1:${port}`,
    ended,
    stop: async () => {
      // The daemon ends what its shell started, which a signal to its group would not reach.
      child.kill("SIGTERM");
      const cancel = clock.timer(STOP_GRACE_MS, () => killGroup(child.pid));
      await ended;
      cancel();
    },
  };
}

/**
 * The daemon that an earlier Drover left dies with its standard input, but not at once: until then it
 * may still take up a call. Two daemons on one journal would run that call twice.
 */
async function endPrevious(processRecord: string, clock: Clock): Promise<void> {
  const text = await readFile(processRecord, "utf8").catch(() => "");
  if (text === "") return;
  const previous: ProcessIdentity = JSON.parse(text);
  if (previous.started === "") return;
  while (await isAlive(previous)) {
    killGroup(previous.pid);
    await clock.sleep(20);
  }
}

function failToStart(how: string): never {
  throw new AppError("UNAVAILABLE", `the sandbox daemon ended before it was ready (${how})`);
}

async function listeningPort(child: ChildProcess): Promise<number> {
  if (child.stdout === null) throw new AppError("INTERNAL", "the sandbox daemon has no output");
  const lines = createInterface({ input: child.stdout });
  for await (const line of lines) {
    const match = /^\{"listening":\s*(\d+)\}$/.exec(line);
    // The interface stays open: what the daemon logs later must not fill its pipe.
    if (match !== null) {
      child.stdout.resume();
      return Number(match[1]);
    }
  }
  throw new AppError("UNAVAILABLE", "the sandbox daemon closed its output before it was ready");
}

async function endOf(child: ChildProcess): Promise<string> {
  return await new Promise((resolve) => {
    child.once("error", (error) => resolve(error.message));
    child.once("exit", (code, signal) => resolve(signal ?? `exit code ${code}`));
  });
}

function killGroup(pid: number | undefined): void {
  if (pid === undefined) return;
  try {
    process.kill(-pid, "SIGKILL");
  } catch {
    // It has ended already.
  }
}

/** Runs the template's set-up script in the workspace; throws UNAVAILABLE with its last output. */
export async function runSetupScript(
  script: string,
  place: SandboxPlace,
  nodeDirectory: string,
  signal: AbortSignal,
): Promise<void> {
  const env = environment(place);
  const child = spawn("bash", ["-euo", "pipefail", "-c", script], {
    cwd: place.workspace,
    env: { ...env, PATH: `${nodeDirectory}:${env["PATH"]}` },
    stdio: ["ignore", "pipe", "pipe"],
    signal,
  });
  let tail = "";
  for (const stream of [child.stdout, child.stderr]) {
    stream.on("data", (chunk: Buffer) => {
      tail = (tail + chunk.toString("utf8")).slice(-SETUP_OUTPUT_CHARS);
    });
  }
  const [code] = await once(child, "close");
  if (code !== 0) {
    throw new AppError(
      "UNAVAILABLE",
      `the set-up script ended with exit code ${code}: ${tail.trim()}`,
    );
  }
}
