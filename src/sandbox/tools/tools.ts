import { join } from "node:path";
import { SANDBOX_ENV } from "../../protocol/sandbox-api.ts";
import type { Clock } from "../../runtime/clock.ts";
import type { SandboxConfig } from "../config.ts";
import { gitEnvironment, gitFiles } from "../git-config.ts";
import { PROCESS_MARKER } from "../processes.ts";
import { createBashTool } from "./bash.ts";
import { createFileTools } from "./files.ts";
import { createGlobTool } from "./glob.ts";
import { createGrepTool } from "./grep.ts";
import type { Tool } from "./tool.ts";
import { Workspace } from "./workspace.ts";

/** Folder for pipes, beside the journal. */
export const RUN_FOLDER = "run";

/** All that a command sees of the environment: nothing of the daemon's is inherited. */
export function shellEnvironment(config: SandboxConfig): Record<string, string> {
  return {
    PATH: config.path,
    HOME: config.workspace,
    LANG: "C.UTF-8",
    TERM: "dumb",
    TMPDIR: config.temporaryDir,
    [PROCESS_MARKER]: config.sandboxId,
    ...gitEnvironment(gitFiles(config.journalDir)),
    ...(config.examplesDir === undefined ? {} : { [SANDBOX_ENV.examples]: config.examplesDir }),
  };
}

/** The tools of `sandboxTools`, by name. */
export function createTools(config: SandboxConfig, clock: Clock): ReadonlyMap<string, Tool> {
  const env = shellEnvironment(config);
  const workspace = new Workspace(config.workspace);
  const tools = [
    createBashTool({
      workspace: config.workspace,
      env,
      runDir: join(config.journalDir, RUN_FOLDER),
      sandboxId: config.sandboxId,
      clock,
    }),
    ...createFileTools(workspace),
    createGlobTool(workspace),
    createGrepTool({ workspace, env }),
  ];
  return new Map(tools.map((tool) => [tool.name, tool]));
}
