import { Command } from "commander";
import { VERSION } from "../runtime/version.ts";

/** What `drover run` was asked for. */
export interface RunArguments {
  file: string[];
  dataDir?: string;
  modelUrl?: string;
  modelKeyFile?: string;
  credentials?: string;
  allowServer: string[];
  script: string[];
  verbose: boolean;
}

/** The processes a sub-command starts; each resolves to an exit code. Handed in by `cmd/drover.ts`. */
export interface Processes {
  operator(): Promise<number>;
  harness(): Promise<number>;
  proxy(): Promise<number>;
  sandbox(): Promise<number>;
  "scripted-model"(): Promise<number>;
  cleanup(): Promise<number>;
  run(options: RunArguments): Promise<number>;
  "audit verify"(options: { checkpoint: string[] }): Promise<number>;
  done(code: number): void;
}

const PROCESSES = {
  operator: "watch our kinds and keep pods, policies and sessions as they say",
  harness: "claim sessions, call the model, run tools",
  proxy: "the sidecar that alone holds credentials",
  sandbox: "the daemon inside a sandbox",
  "scripted-model": "a server that speaks the Messages API and follows a script",
  cleanup: "before helm uninstall: remove what the operator made in any namespace",
} as const;

/** The command line. A process reads its settings from the environment: docs/reference/configuration.md. */
export function createProgram(processes: Processes): Command {
  const program = new Command("drover")
    .description("Runs AI agent sessions on your own Kubernetes")
    .version(VERSION)
    .showHelpAfterError("(drover --help lists the commands)");
  program
    .command("run")
    .description("run the AgentSessions of manifests in this process: no cluster, no key needed")
    .requiredOption("-f, --file <manifest>", "manifest with our kinds; may be repeated", collect)
    .option("--data-dir <folder>", "where logs and sandboxes are kept")
    .option(
      "--model-url <url>",
      "endpoint that speaks the Messages API, instead of the scripted model",
    )
    .option("--model-key-file <file>", "file with the API key for --model-url")
    .option("--credentials <file>", "file (mode 0600) with the credentials of MCP servers")
    .option(
      "--allow-server <host:port>",
      "MCP server with a private address; may be repeated",
      collect,
      [],
    )
    .option("--script <file>", "script of the scripted model; may be repeated", collect, [])
    .option("-v, --verbose", "print the log of the processes too", false)
    .action(async (options: RunArguments) => processes.done(await processes.run(options)));
  for (const [name, description] of entries(PROCESSES)) {
    program
      .command(name)
      .description(description)
      .action(async () => processes.done(await processes[name]()));
  }
  program
    .command("audit")
    .description("the audit log of proxies")
    .command("verify")
    .description("read a log from standard input and say what was dropped, moved or edited")
    .option(
      "--checkpoint <chain:seq:hash>",
      "one of the Redis stream drover:px:audit; may be repeated",
      collect,
      [],
    )
    .action(async (options: { checkpoint: string[] }) =>
      processes.done(await processes["audit verify"](options)),
    );
  return program;
}

function collect(value: string, before: string[] = []): string[] {
  return [...before, value];
}

function entries<K extends string>(table: Record<K, string>): [K, string][] {
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- Object.entries forgets the keys
  return Object.entries(table) as [K, string][];
}
