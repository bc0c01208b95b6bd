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

/** What `drover credentials` was asked for; a value comes from standard input, never from here. */
export type CredentialsAction = { file?: string | undefined } & (
  | { name: "list" }
  | { name: "set" | "remove"; namespace: string; secret: string; key: string }
);

/** How `drover audit verify` is to check. */
export interface AuditVerifyArguments {
  /** Files with entries of the Redis stream of checkpoints, as redis-cli prints them. */
  checkpoints: string[];
  /** Files with public keys of the issuer (JWKS). */
  keys: string[];
  /** UIDs of the pods whose records the log holds; without, of all that have checkpoints. */
  pod: string[];
  /** `CHAIN:SEQ:HASH`, noted by who asks. */
  checkpoint: string[];
  /** No checkpoints are at hand, and a check of the chains by themselves will do. */
  consistencyOnly?: boolean;
}

/** The processes a sub-command starts; each resolves to an exit code. Handed in by `cmd/drover.ts`. */
export interface Processes {
  operator(): Promise<number>;
  harness(): Promise<number>;
  proxy(): Promise<number>;
  edge(): Promise<number>;
  sandbox(): Promise<number>;
  "scripted-model"(): Promise<number>;
  cleanup(): Promise<number>;
  run(options: RunArguments): Promise<number>;
  credentials(action: CredentialsAction): Promise<number>;
  "audit verify"(options: AuditVerifyArguments): Promise<number>;
  done(code: number): void;
}

const PROCESSES = {
  operator: "watch our kinds and keep pods, policies and sessions as they say",
  harness: "claim sessions, call the model, run tools",
  proxy: "the sidecar that alone holds credentials",
  edge: "git for sandboxes, with the credentials that these never see",
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
    .option("--credentials <file>", "file made by `drover credentials`, instead of this user's")
    .option(
      "--allow-server <host:port>",
      "MCP server or git host with a private address; may be repeated",
      collect,
      [],
    )
    .option("--script <file>", "script of the scripted model; may be repeated", collect, [])
    .option("-v, --verbose", "print the log of the processes too", false)
    .action(async (options: RunArguments) => processes.done(await processes.run(options)));
  addCredentials(program, processes);
  for (const [name, description] of entries(PROCESSES)) {
    program
      .command(name)
      .description(description)
      .action(async () => processes.done(await processes[name]()));
  }
  addAudit(program, processes);
  return program;
}

function addAudit(program: Command, processes: Processes): void {
  program
    .command("audit")
    .description("the audit log of proxies")
    .command("verify")
    .description(
      "read a log from standard input and say what was dropped, moved, edited or made up; " +
        "exits with 0 only if checkpoints show that nothing was",
    )
    .option(
      "--checkpoints <file>",
      "entries of the Redis stream drover:px:audit, as redis-cli prints them; may be repeated",
      collect,
      [],
    )
    .option(
      "--keys <file>",
      "public keys of the issuer (JWKS), by which checkpoints are checked; may be repeated",
      collect,
      [],
    )
    .option(
      "--pod <uid>",
      "the log holds the records of this pod, and no others; may be repeated; " +
        "without, of all pods that have checkpoints",
      collect,
      [],
    )
    .option(
      "--checkpoint <chain:seq:hash>",
      "an end that you noted from an earlier run; may be repeated",
      collect,
      [],
    )
    .option("--consistency-only", "do without checkpoints: hold each chain against itself alone")
    .action(async (options: AuditVerifyArguments) =>
      processes.done(await processes["audit verify"](options)),
    );
}

/** Values are read from standard input: arguments are seen by every process of the machine. */
function addCredentials(program: Command, processes: Processes): void {
  const credentials = program
    .command("credentials")
    .description("the credentials of local mode, kept in an encrypted file");
  const fileOption = ["--file <file>", "the encrypted file, instead of this user's"] as const;
  const changes = {
    set: "store the value on standard input as KEY of SECRET, a Secret of NAMESPACE",
    remove: "forget it",
  } as const;
  for (const [name, description] of entries(changes)) {
    credentials
      .command(name)
      .description(description)
      .argument("<namespace>")
      .argument("<secret>")
      .argument("<key>")
      .option(...fileOption)
      .action(async (namespace: string, secret: string, key: string, { file }: { file?: string }) =>
        processes.done(await processes.credentials({ name, namespace, secret, key, file })),
      );
  }
  credentials
    .command("list")
    .description("print what is stored: namespace, secret and key, never a value")
    .option(...fileOption)
    .action(async ({ file }: { file?: string }) =>
      processes.done(await processes.credentials({ name: "list", file })),
    );
}

function collect(value: string, before: string[] = []): string[] {
  return [...before, value];
}

function entries<K extends string>(table: Record<K, string>): [K, string][] {
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- Object.entries forgets the keys
  return Object.entries(table) as [K, string][];
}
