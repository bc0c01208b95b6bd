import { mkdir, rm } from "node:fs/promises";
import { join } from "node:path";
import type { Clock } from "../runtime/clock.ts";
import { AppError } from "../runtime/errors.ts";
import type { Logger } from "../runtime/logger.ts";
import type { Registry } from "../runtime/metrics.ts";
import { checkFolders, type SandboxConfig } from "./config.ts";
import { Executor } from "./executor.ts";
import { gitFiles } from "./git-config.ts";
import { Journal } from "./journal.ts";
import { createSandboxMetrics } from "./metrics.ts";
import { OutputStore } from "./output-store.ts";
import { killAll } from "./processes.ts";
import { Repositories } from "./repositories.ts";
import { createSandboxServer } from "./server.ts";
import { createTools, RUN_FOLDER, shellEnvironment } from "./tools/tools.ts";

export interface SandboxDaemonOptions {
  config: SandboxConfig;
  clock: Clock;
  logger: Logger;
  registry: Registry;
}

export interface SandboxDaemon {
  /** The port it listens on. */
  port: number;
  /** Takes no more calls, kills what runs and records it as stopped, answers who waits, then ends. */
  close(): Promise<void>;
}

/**
 * Starts the daemon of one sandbox: reads the journal, kills what an earlier daemon of this sandbox
 * left running, then takes calls. Throws CONFIG_INVALID when it cannot use its folders or its port.
 */
export async function startSandboxDaemon(options: SandboxDaemonOptions): Promise<SandboxDaemon> {
  const { config, clock, logger, registry } = options;
  checkFolders(config);
  const journal = await openJournal(config);
  if (journal.damagedLines > 0) {
    logger.warn({ lines: journal.damagedLines }, "journal has damaged lines");
  }
  await killAll(clock, undefined, config.sandboxId);
  const metrics = createSandboxMetrics(registry);
  const executor = new Executor({
    tools: createTools(config, clock),
    journal,
    outputs: new OutputStore(config),
    clock,
    logger: logger.child({ component: "executor" }),
    metrics,
  });
  await executor.recover();
  const repositories = new Repositories({
    workspace: config.workspace,
    files: gitFiles(config.journalDir),
    env: shellEnvironment(config),
    clock,
    logger: logger.child({ component: "repositories" }),
  });
  await repositories.recover();
  const server = createSandboxServer({
    config,
    executor,
    repositories,
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
      await Promise.all([executor.close(), repositories.close()]);
      await server.close();
      await journal.close();
    },
  };
}

async function openJournal(config: SandboxConfig): Promise<Journal> {
  try {
    await mkdir(config.workspace, { recursive: true });
    await rm(join(config.journalDir, RUN_FOLDER), { recursive: true, force: true });
    return await Journal.open(config.journalDir);
  } catch (cause) {
    throw new AppError("CONFIG_INVALID", "workspace or journal folder cannot be used", { cause });
  }
}
