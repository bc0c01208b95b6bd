import { z } from "zod";
import type { SANDBOX_TOOLS } from "./sandbox-api.ts";

/**
 * What a model is told about the tools of a sandbox, and what the daemon accepts. Names and fields
 * are those of the SDK's agent tool set (managed-agents-api D.2); bounds and descriptions say what
 * our daemon does.
 */

export type SandboxToolName = (typeof SANDBOX_TOOLS)[number];

/** Time a bash command gets when its call names none; the SDK's tool set uses the same. */
export const BASH_DEFAULT_TIMEOUT_MS = 120_000;
/** The longest time a bash command may ask for. */
const BASH_MAX_TIMEOUT_MS = 3_600_000;

const path = (description: string) => z.string().min(1).describe(description);

export const bashInput = z.object({
  command: z.string().optional().describe("The command to run."),
  restart: z
    .boolean()
    .optional()
    .describe("Kill the shell and everything it started, and begin a new one, before running."),
  timeout_ms: z
    .int()
    .min(1)
    .max(BASH_MAX_TIMEOUT_MS)
    .optional()
    .describe("Time limit in milliseconds; 120000 when absent."),
});

export const readInput = z.object({
  file_path: path("File to read, relative to the working directory."),
  view_range: z
    .array(z.int())
    .length(2)
    .optional()
    .describe("[first line, last line], counted from 1, both included; last ≤ 0 is the end."),
});

export const writeInput = z.object({
  file_path: path("File to write, relative to the working directory."),
  content: z.string().describe("The whole new content."),
});

export const editInput = z.object({
  file_path: path("File to change, relative to the working directory."),
  old_string: z.string().min(1).describe("Text to replace; must occur once unless replace_all."),
  new_string: z.string().describe("Text to put in its place."),
  replace_all: z.boolean().optional().describe("Replace every occurrence."),
});

export const globInput = z.object({
  pattern: z.string().min(1).describe("Relative glob pattern such as `src/**/*.ts`."),
  path: z.string().optional().describe("Directory to search in; the working directory if absent."),
});

export const grepInput = z.object({
  pattern: z.string().min(1).describe("Regular expression."),
  path: z.string().optional().describe("File or directory; the working directory if absent."),
});

export const sandboxTools = {
  bash: {
    description:
      "Run a bash command in a persistent shell: working directory, variables and functions are kept from call to call. " +
      "Standard output and standard error come back together; standard input is empty. " +
      "The call is over when the command is; output that background processes print later is discarded, so redirect it to a file to keep it. " +
      "At the time limit the shell and everything it started are killed and what was printed so far is returned.",
    input: bashInput,
  },
  read: {
    description:
      "Read a UTF-8 text file. Files above 256 KiB need view_range. Paths are confined to the working directory.",
    input: readInput,
  },
  write: {
    description: "Write a UTF-8 text file, making parent directories as needed.",
    input: writeInput,
  },
  edit: {
    description:
      "Replace old_string with new_string in a file. old_string must be unique unless replace_all is set. " +
      "In a file whose lines end in CRLF write plain line ends: they are kept as CRLF. All other bytes stay as they are.",
    input: editInput,
  },
  glob: {
    description:
      "Find files by glob pattern (`*`, `?`, `[ab]`, `{a,b}`, `**`), newest first, at most 200. " +
      "A folder or file with brackets in its name is found by its plain name, `app/[id]/*.tsx`, or with escapes, `app/\\[id\\]/*.tsx`. " +
      "Hidden files and files that git ignores are found; .git and node_modules only when the pattern or path names them.",
    input: globInput,
  },
  grep: {
    description:
      "Search file contents for a regular expression; gives file:line:text. " +
      "Hidden files and files that git ignores are searched; .git and node_modules only when path leads into one.",
    input: grepInput,
  },
} as const satisfies Record<SandboxToolName, { description: string; input: z.ZodType }>;

const toolDeclaration = z.object({
  name: z.string(),
  description: z.string(),
  /** JSON schema of the input, as the Messages API takes it. */
  input_schema: z.looseObject({ type: z.literal("object") }),
});
export type ToolDeclaration = z.output<typeof toolDeclaration>;

/** Body of `GET /v1/tools`. */
export const toolsResponse = z.object({ tools: z.array(toolDeclaration) });

/** The tools as the Messages API wants them declared. */
export function sandboxToolDeclarations(): ToolDeclaration[] {
  return Object.entries(sandboxTools).map(([name, tool]) => {
    const { $schema: _, ...schema } = z.toJSONSchema(tool.input, { io: "input" });
    return toolDeclaration.parse({
      name,
      description: tool.description,
      input_schema: schema,
    });
  });
}
