import { isAbsolute, relative } from "node:path";
import { z } from "zod";
import { SANDBOX_ENV } from "../protocol/sandbox-api.ts";
import type { Jwks } from "../protocol/tokens.ts";
import { AppError } from "../runtime/errors.ts";

/** The port the daemon listens on in every sandbox pod (PORTS.sandbox). */
const DEFAULT_PORT = 7080;

const publicKey = z
  .looseObject({ kty: z.literal("OKP"), crv: z.literal("Ed25519"), x: z.string().min(1) })
  .refine((key) => !("d" in key), "is a private key");

const publicKeys = z
  .string()
  .transform((text, context): Jwks => {
    const parsed = z.object({ keys: z.array(publicKey).min(1) }).safeParse(parseJson(text));
    if (parsed.success) return parsed.data;
    const issue = parsed.error.issues[0];
    context.addIssue(
      `must be a JWKS of Ed25519 public keys (${issue?.path.join(".")}: ${issue?.message})`,
    );
    return z.NEVER;
  })
  .meta({
    env: SANDBOX_ENV.publicKeys,
    description: "JWKS (JSON) of the issuer's public keys; execute tokens are checked with them.",
  });

const folder = (env: string, description: string) =>
  z.string().refine(isAbsolute, "must be an absolute path").meta({ env, description });

/** What the runner is told, and the daemon that starts one itself. */
export const toolFields = {
  sandboxId: z.string().min(1).max(128).meta({
    env: SANDBOX_ENV.sandboxId,
    description: "UID of the sandbox pod; a token for another sandbox is refused.",
  }),
  runnerSocket: folder(
    SANDBOX_ENV.runnerSocket,
    "Unix socket between daemon and runner. Without it the daemon starts the runner as its child.",
  ).optional(),
  workspace: folder(SANDBOX_ENV.workspace, "Folder the tools work in.").default("/workspace"),
  examplesDir: folder(
    SANDBOX_ENV.examples,
    "Folder with example archives, passed on to the shell.",
  ).optional(),
  path: z.string().default("/usr/local/bin:/usr/bin:/bin").meta({
    env: "PATH",
    description: "Search path of the shell.",
  }),
  temporaryDir: folder("TMPDIR", "Folder for temporary files of the shell.").default("/tmp"),
  logLevel: z.enum(["debug", "info", "warn", "error"]).default("info").meta({
    env: "DROVER_LOG_LEVEL",
    description: "Least severe level that is logged.",
  }),
};

/** Everything the daemon is told; none of it is secret. */
export const sandboxConfig = z.object({
  ...toolFields,
  publicKeys,
  port: z.coerce.number().int().min(0).max(65_535).default(DEFAULT_PORT).meta({
    env: SANDBOX_ENV.port,
    description: "TCP port to listen on; 0 takes a free one.",
  }),
  host: z.string().default("0.0.0.0").meta({
    env: SANDBOX_ENV.host,
    description: "Address to listen on.",
  }),
  journalDir: folder(
    SANDBOX_ENV.journal,
    "Folder of the journal; on a volume that outlives the container, outside the workspace.",
  ).default("/var/lib/drover"),
  parentPipe: z.stringbool().default(false).meta({
    env: SANDBOX_ENV.parentPipe,
    description: "End when standard input closes: the process that started the daemon is gone.",
  }),
});

export type SandboxConfig = Readonly<z.output<typeof sandboxConfig>>;

/** Throws CONFIG_INVALID when `rm -rf` of the workspace, or a file tool, would reach the journal. */
export function checkFolders(config: Pick<SandboxConfig, "workspace" | "journalDir">): void {
  const inside = relative(config.workspace, config.journalDir);
  if (inside === "" || (!inside.startsWith("..") && !isAbsolute(inside))) {
    throw new AppError(
      "CONFIG_INVALID",
      `${SANDBOX_ENV.journal} lies inside ${SANDBOX_ENV.workspace}; tools would reach the journal: give it a folder of its own`,
    );
  }
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
