import type { Clock } from "../runtime/clock.ts";
import { AppError } from "../runtime/errors.ts";
import type { Logger } from "../runtime/logger.ts";
import type { Registry } from "../runtime/metrics.ts";
import { checkFolders, type SandboxConfig } from "./config.ts";
import { Executor } from "./executor.ts";
import { Journal } from "./journal.ts";
import { createSandboxMetrics } from "./metrics.ts";
import { RunnerLink } from "./runner-link.ts";
import type { RunnerSource } from "./runner-socket.ts";
import { createSandboxServer } from "./server.ts";
import { TailStore } from "./tail-store.ts";

export interface SandboxDaemonOptions {
  config: SandboxConfig;
  /** Gets a runner for the link. `usedBefore`: calls may have run in this sandbox, under an earlier daemon. */
  runner: (link: RunnerLink, usedBefore: boolean) => Promise<RunnerSource>;
  clock: Clock;
  logger: Logger;
  registry: Registry;
}

export interface SandboxDaemon {
  /** The port it listens on. */
  port: number;
  /** Takes no more calls, has what runs killed and records it as stopped, answers who waits, then ends. */
  close(): Promise<void>;
}

/**
 * Starts the daemon of one sandbox: reads the journal, settles what an earlier daemon of this sandbox
 * left open, gets its runner, then takes calls. It runs nothing of a model itself: docs/adr/0011.
 * Throws CONFIG_INVALID when it cannot use its folder, its socket or its port.
 */
export async function startSandboxDaemon(options: SandboxDaemonOptions): Promise<SandboxDaemon> {
  const { config, clock, logger, registry } = options;
  checkFolders(config);
  const journal = await openJournal(config);
  if (journal.damagedLines > 0) {
    logger.warn({ lines: journal.damagedLines }, "journal has damaged lines");
  }
  const metrics = createSandboxMetrics(registry);
  const link = new RunnerLink({ clock, logger: logger.child({ component: "runner" }) });
  const executor = new Executor({
    runner: link,
    journal,
    tails: new TailStore(config.journalDir),
    clock,
    logger: logger.child({ component: "executor" }),
    metrics,
  });
  await executor.recover();
  const source = await options.runner(link, journal.state.binding !== undefined);
  const server = createSandboxServer({
    config,
    executor,
    runner: link,
    journal,
    clock,
    metrics,
    registry,
  });
  await server.listen({ host: config.host, port: config.port });
  const address = server.server.address();
  return {
    port: typeof address === "object" && address !== null ? address.port : config.port,
    close: async () => {
      await executor.close();
      await source.close();
      await server.close();
      await journal.close();
    },
  };
}

async function openJournal(config: SandboxConfig): Promise<Journal> {
  try {
    return await Journal.open(config.journalDir);
  } catch (cause) {
    throw new AppError("CONFIG_INVALID", "the journal's folder cannot be used", { cause });
  }
}
