import { duplexPair } from "node:stream";
import { systemClock } from "../../../src/runtime/clock.ts";
import type { Logger } from "../../../src/runtime/logger.ts";
import type { SandboxConfig } from "../../../src/sandbox/config.ts";
import type { SandboxDaemonOptions } from "../../../src/sandbox/daemon.ts";
import { serveTools } from "../../../src/sandbox/runner.ts";
import { runnerConfigOf } from "../../../src/sandbox/runner-config.ts";

/** A runner in the process of its daemon, for tests that start many sandboxes. */
export function inProcessRunner(
  config: SandboxConfig,
  logger: Logger,
): SandboxDaemonOptions["runner"] {
  return async (link) => {
    const [ours, theirs] = duplexPair();
    const attached = link.attach(ours);
    const served = serveTools({
      config: runnerConfigOf(config),
      stream: theirs,
      clock: systemClock,
      logger,
    });
    await link.ready(new AbortController().signal);
    return {
      close: async () => {
        await link.close();
        await attached;
        await served;
      },
    };
  };
}
