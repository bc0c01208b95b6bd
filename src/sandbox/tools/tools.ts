import { join } from "node:path";
import { SANDBOX_ENV } from "../../protocol/sandbox-api.ts";
import type { Clock } from "../../runtime/clock.ts";
import { gitEnvironment, gitFiles } from "../git-config.ts";
import { PROCESS_MARKER } from "../processes.ts";
import type { RunnerConfig } from "../runner-config.ts";
import { createBashTool } from "./bash.ts";
import { createFileTools } from "./files.ts";
import { createGlobTool } from "./glob.ts";
import { createGrepTool } from "./grep.ts";
import type { Tool } from "./tool.ts";
import { Workspace } from "./workspace.ts";

/** Folder for pipes, in the runner's own. */
export const RUN_FOLDER = "run";

/** All that a command sees of the environment: nothing of the runner's is inherited. */
export function shellEnvironment(config: RunnerConfig): Record<string, string> {
  return {
    PATH: config.path,
    HOME: config.workspace,
    LANG: "C.UTF-8",
    TERM: "dumb",
    TMPDIR: config.temporaryDir,
    [PROCESS_MARKER]: config.sandboxId,
    ...gitEnvironment(gitFiles(config.stateDir)),
    ...(config.examplesDir === undefined ? {} : { [SANDBOX_ENV.examples]: config.examplesDir }),
  };
}

/** The tools of `sandboxTools`, by name. */
export function createTools(config: RunnerConfig, clock: Clock): ReadonlyMap<string, Tool> {
  const env = shellEnvironment(config);
  const workspace = new Workspace(config.workspace);
  const tools = [
    createBashTool({
      workspace: config.workspace,
      env,
      runDir: join(config.stateDir, RUN_FOLDER),
      sandboxId: config.sandboxId,
      clock,
    }),
    ...createFileTools(workspace),
    createGlobTool(workspace),
    createGrepTool({ workspace, env }),
  ];
  return new Map(tools.map((tool) => [tool.name, tool]));
}
