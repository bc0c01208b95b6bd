import { type ChildProcess, spawn } from "node:child_process";
import { Socket } from "node:net";
import type { Clock } from "../runtime/clock.ts";
import type { Logger } from "../runtime/logger.ts";
import type { RunnerLink } from "./runner-link.ts";
import type { RunnerSource } from "./runner-socket.ts";

/**
 * The runner as a child of the daemon: local mode, and wherever a daemon is started alone. Both run as
 * the same user, so nothing keeps the tools from the daemon: this is no security boundary.
 */
export interface RunnerChildOptions {
  /** Program and arguments. */
  command: readonly string[];
  /** All that it gets of an environment. */
  env: Record<string, string>;
  link: RunnerLink;
  clock: Clock;
  logger: Logger;
}

/** Between the end of a runner and the start of the next. */
const RESTART_MS = 500;
/** Beyond the time it is given to end what it started. */
const KILL_MS = 5000;

/** Starts the runner, and again whenever it ends, until `close`. */
export function startRunnerChild(options: RunnerChildOptions): RunnerSource {
  const { link, clock, logger } = options;
  const closing = new AbortController();
  const work = (async () => {
    while (!closing.signal.aborted) {
      const how = await runOnce(options);
      if (closing.signal.aborted) return;
      logger.warn({ reason: how }, "runner ended");
      await clock.sleep(RESTART_MS, closing.signal).catch(() => {});
    }
  })();
  return {
    close: async () => {
      closing.abort();
      await link.close();
      await work;
    },
  };
}

async function runOnce({ command, env, link, clock }: RunnerChildOptions): Promise<string> {
  const [program = "", ...args] = command;
  // Of ours it has what it logs to, and the connection. It hands neither on.
  const child = spawn(program, args, { env, stdio: ["ignore", "inherit", "inherit", "pipe"] });
  const ended = endOf(child);
  const connection = child.stdio[3];
  if (connection instanceof Socket) await link.attach(connection);
  const cancel = clock.timer(KILL_MS, () => child.kill("SIGKILL"));
  const how = await ended;
  cancel();
  return how;
}

async function endOf(child: ChildProcess): Promise<string> {
  return await new Promise((resolve) => {
    child.once("error", (error) => resolve(error.message));
    child.once("exit", (code, signal) => resolve(signal ?? `exit code ${code}`));
  });
}
