import { isAbsolute } from "node:path";
import { z } from "zod";
import { SANDBOX_ENV } from "../protocol/sandbox-api.ts";
import { type SandboxConfig, toolFields } from "./config.ts";

/** Everything the runner is told; none of it is secret. */
export const runnerConfig = z.object({
  ...toolFields,
  stateDir: z
    .string()
    .refine(isAbsolute, "must be an absolute path")
    .default("/var/lib/drover")
    .meta({
      env: SANDBOX_ENV.runnerDir,
      description: "Folder for pipes and for git's settings; outside the workspace.",
    }),
});

export type RunnerConfig = Readonly<z.output<typeof runnerConfig>>;

/** For a runner on the same machine and folders as its daemon. */
export function runnerConfigOf(config: SandboxConfig): RunnerConfig {
  return { ...config, stateDir: config.journalDir };
}

/** The same as environment variables: all that such a runner gets. */
export function runnerEnvironment(config: SandboxConfig): Record<string, string> {
  return {
    PATH: config.path,
    TMPDIR: config.temporaryDir,
    DROVER_LOG_LEVEL: config.logLevel,
    [SANDBOX_ENV.sandboxId]: config.sandboxId,
    [SANDBOX_ENV.workspace]: config.workspace,
    [SANDBOX_ENV.runnerDir]: config.journalDir,
    ...(config.examplesDir === undefined ? {} : { [SANDBOX_ENV.examples]: config.examplesDir }),
  };
}
