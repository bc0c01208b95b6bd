import { connect, Socket } from "node:net";
import { systemClock } from "../runtime/clock.ts";
import { loadConfig } from "../runtime/config.ts";
import { createLogger } from "../runtime/logger.ts";
import { runProcess } from "../runtime/process.ts";
import { serveTools } from "../sandbox/runner.ts";
import { runnerConfig } from "../sandbox/runner-config.ts";

/** Where the daemon that starts this process puts its end of the connection. */
const CONNECTION = 3;
const RETRY_MS = 100;

/**
 * The runner of one sandbox: the process that has the tools. It ends when its connection to the daemon
 * does, and with it, in a pod, its container with all that runs there. A signal to stop ends it only
 * while it has no daemon: the daemon still has to hear how the calls ended.
 */
export async function runnerMain(
  env: Readonly<Record<string, string | undefined>>,
  signal: AbortSignal,
): Promise<number> {
  const config = loadConfig(runnerConfig, env);
  const logger = createLogger({ level: config.logLevel, process: "sandbox-runner" });
  const stream = await connection(config.runnerSocket, signal);
  if (stream === undefined) return 0;
  logger.info({ sandbox: config.sandboxId }, "runner connected");
  await serveTools({ config, stream, clock: systemClock, logger });
  return 0;
}

/** Undefined when the signal aborts first. */
async function connection(
  path: string | undefined,
  signal: AbortSignal,
): Promise<Socket | undefined> {
  if (path === undefined) return new Socket({ fd: CONNECTION, readable: true, writable: true });
  while (!signal.aborted) {
    const socket = await tryToConnect(path);
    if (socket !== undefined) return socket;
    // The daemon is not there yet, or waits until an earlier runner is surely gone.
    await systemClock.sleep(RETRY_MS, signal).catch(() => {});
  }
  return undefined;
}

/** Undefined when nobody listens, or when the daemon lets nobody in: then it hangs up without a word. */
async function tryToConnect(path: string): Promise<Socket | undefined> {
  return await new Promise((resolve) => {
    const socket = connect(path);
    socket.once("readable", () => resolve(socket.readableLength > 0 ? socket : undefined));
    socket.once("error", () => resolve(undefined));
    socket.once("close", () => resolve(undefined));
  });
}

if (import.meta.main) {
  await runProcess((signal) => runnerMain(process.env, signal));
}
