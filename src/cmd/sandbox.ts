import { extname, join } from "node:path";
import { aborted } from "../runtime/abort.ts";
import { systemClock } from "../runtime/clock.ts";
import { loadConfig } from "../runtime/config.ts";
import { createLogger } from "../runtime/logger.ts";
import { createRegistry } from "../runtime/metrics.ts";
import { runProcess } from "../runtime/process.ts";
import { VERSION } from "../runtime/version.ts";
import { sandboxConfig } from "../sandbox/config.ts";
import { startSandboxDaemon } from "../sandbox/daemon.ts";
import { startRunnerChild } from "../sandbox/runner-child.ts";
import { runnerEnvironment } from "../sandbox/runner-config.ts";
import { listenForRunner } from "../sandbox/runner-socket.ts";

/**
 * `drover sandbox`: the daemon of one sandbox, until the signal aborts. With port 0 it prints one
 * line, `{"listening":<port>}`, for the process that started it.
 */
export async function sandboxMain(
  env: Readonly<Record<string, string | undefined>>,
  signal: AbortSignal,
): Promise<number> {
  const config = loadConfig(sandboxConfig, env);
  const logger = createLogger({ level: config.logLevel, process: "sandbox" });
  const daemon = await startSandboxDaemon({
    config,
    runner: async (link, usedBefore) => {
      const { runnerSocket: path } = config;
      const common = { link, clock: systemClock };
      if (path !== undefined) return await listenForRunner({ ...common, path, usedBefore });
      const child = startRunnerChild({
        ...common,
        command: runnerCommand(),
        env: runnerEnvironment(config),
        logger,
      });
      // Nobody looks at /healthz here: who started this process expects it to take calls.
      await link.ready(signal);
      return child;
    },
    clock: systemClock,
    logger,
    registry: createRegistry("sandbox", VERSION),
  });
  logger.info({ sandbox: config.sandboxId, port: daemon.port }, "sandbox listening");
  if (config.port === 0) process.stdout.write(`{"listening":${daemon.port}}\n`);
  await aborted(config.parentPipe ? AbortSignal.any([signal, parentGone()]) : signal);
  await daemon.close();
  return 0;
}

/** The runner is the file beside this one, as source or compiled. */
function runnerCommand(): string[] {
  const file = `sandbox-runner${extname(import.meta.filename)}`;
  return [process.execPath, "--disable-sigusr1", join(import.meta.dirname, file)];
}

/** Aborts when standard input closes. */
function parentGone(): AbortSignal {
  const gone = new AbortController();
  process.stdin.on("end", () => gone.abort());
  process.stdin.on("close", () => gone.abort());
  process.stdin.on("error", () => gone.abort());
  process.stdin.resume();
  return gone.signal;
}

if (import.meta.main) {
  await runProcess((signal) => sandboxMain(process.env, signal));
}
