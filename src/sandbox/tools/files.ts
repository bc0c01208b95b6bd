import { isUtf8 } from "node:buffer";
import type { FileHandle } from "node:fs/promises";
import type { z } from "zod";
import {
  editInput,
  readInput,
  type SandboxToolName,
  sandboxTools,
  writeInput,
} from "../../protocol/sandbox-tools.ts";
import { codeOf } from "../../runtime/errors.ts";
import { editBytes } from "./text-edit.ts";
import type { Tool, ToolContext, ToolEnd } from "./tool.ts";
import {
  describeFileError,
  FileProblem,
  openFile,
  replaceFile,
  type Workspace,
} from "./workspace.ts";

/** File tools answer in milliseconds; only a hung volume or a hostile pattern takes longer. */
const FILE_DEADLINE_MS = 60_000;
/** As in the SDK's tool set: a larger file is read by ranges of lines, and not edited. */
const MAX_FILE_BYTES = 256 * 1024;
const READ_CHUNK_BYTES = 64 * 1024;

/**
 * `read`, `write` and `edit`. Names, inputs and answers are those of the SDK's agent tool set; its code
 * is not used, because it changes bytes that are not UTF-8 and opens by a path what it checked before.
 */
export function createFileTools(workspace: Workspace): Tool[] {
  return [
    fileTool("read", async (raw, { output }) => {
      const input = readInput.parse(raw);
      const bytes = await workspace.at(input.file_path, async (place) => {
        const file = await openFile(place, input.file_path);
        return await readAndClose(file, input);
      });
      output.write(bytes);
      if (bytes.length === 0) return { isError: false, notes: ["(the file or range is empty)"] };
      return { isError: false, notes: isUtf8(bytes) ? [] : [NOT_UTF8_NOTE] };
    }),
    fileTool("write", async (raw) => {
      const { file_path: path, content } = writeInput.parse(raw);
      const bytes = Buffer.from(content);
      await workspace.at(path, (place) => replaceFile(place, path, bytes), { makeFolders: true });
      return { isError: false, notes: [`wrote ${bytes.length} bytes to ${path}`] };
    }),
    fileTool("edit", async (raw) => {
      const input = editInput.parse(raw);
      const count = await editFile(workspace, input);
      return { isError: false, notes: [`edited ${input.file_path} (${count} replacement(s))`] };
    }),
  ];
}

const NOT_UTF8_NOTE =
  "(this is not UTF-8 text: each byte that does not fit is shown as \u{fffd}; look at it in bash, with `file`, `iconv` or `xxd`)";

/** A tool whose problems are told to the model in the words of FileProblem. */
export function fileTool(
  name: SandboxToolName,
  work: (input: unknown, context: ToolContext) => Promise<ToolEnd>,
): Tool {
  return {
    name,
    input: sandboxTools[name].input,
    deadlineMs: FILE_DEADLINE_MS,
    run: async (input, context) => {
      try {
        return await work(input, context);
      } catch (error) {
        if (!(error instanceof FileProblem) && codeOf(error) === undefined) throw error;
        const path = pathOf(input);
        return { isError: true, notes: [`${name}: ${describeFileError(error, path)}`] };
      }
    },
    clean: (text) => (name === "grep" ? text.replace(/\n$/, "") : text),
    close: () => Promise.resolve(),
  };
}

function pathOf(input: unknown): string {
  const fields = typeof input === "object" && input !== null ? Object.entries(input) : [];
  const named = fields.find(([field]) => field === "file_path" || field === "path");
  return typeof named?.[1] === "string" ? named[1] : ".";
}

async function editFile(workspace: Workspace, input: z.output<typeof editInput>): Promise<number> {
  const { file_path: path, old_string: oldText, new_string: newText, replace_all: all } = input;
  return await workspace.at(path, async (place) => {
    const file = await openFile(place, path);
    const before = await readAndClose(file, { file_path: path }, EDIT_TOO_LARGE);
    const result = editBytes(before, { path, oldText, newText, all: all === true });
    if ("refused" in result) throw new FileProblem(result.refused);
    await replaceFile(place, path, result.content);
    return result.count;
  });
}

const READ_TOO_LARGE =
  "Use the view_range parameter to read specific line ranges, e.g. view_range: [1, 500].";
const EDIT_TOO_LARGE =
  "The edit tool loads the whole file and cannot modify a file this large; change it in bash.";

async function readAndClose(
  file: FileHandle,
  { file_path: path, view_range: range }: z.output<typeof readInput>,
  advice = READ_TOO_LARGE,
): Promise<Buffer> {
  try {
    const { size } = await file.stat();
    const [first = 1, last = 0] = range ?? [];
    if (range === undefined && size > MAX_FILE_BYTES) {
      const limit = `exceeds ${MAX_FILE_BYTES}-byte limit`;
      throw new FileProblem(`${path} is ${size} bytes, ${limit}. ${advice}`);
    }
    return await readLines(
      file,
      Math.max(1, first),
      last > 0 ? last : Number.POSITIVE_INFINITY,
      path,
    );
  } finally {
    await file.close();
  }
}

/** The lines from `first` to `last`, without the line end of the last. */
async function readLines(
  file: FileHandle,
  first: number,
  last: number,
  path: string,
): Promise<Buffer> {
  const parts: Buffer[] = [];
  let bytes = 0;
  let line = 1;
  const buffer = Buffer.alloc(READ_CHUNK_BYTES);
  while (line <= last) {
    const { bytesRead } = await file.read(buffer, 0, buffer.length, null);
    if (bytesRead === 0) break;
    let from = 0;
    while (from < bytesRead && line <= last) {
      const end = buffer.subarray(0, bytesRead).indexOf(0x0a, from);
      const to = end < 0 ? bytesRead : end + 1;
      if (line >= first) {
        const withoutEnd = end >= 0 && line === last ? to - 1 : to;
        parts.push(Buffer.from(buffer.subarray(from, withoutEnd)));
        bytes += withoutEnd - from;
      }
      if (end >= 0) line += 1;
      from = to;
    }
    if (bytes > MAX_FILE_BYTES) throw tooMuch(path, first, last);
  }
  return Buffer.concat(parts);
}

function tooMuch(path: string, first: number, last: number): FileProblem {
  const limit = `exceeds ${MAX_FILE_BYTES}-byte limit`;
  return new FileProblem(
    first === last
      ? `line ${first} of ${path} alone ${limit}; read a part of it in bash, with \`cut -c\``
      : `view_range [${first}, ${last === Number.POSITIVE_INFINITY ? 0 : last}] of ${path} ${limit}. Narrow the view_range to read a smaller portion.`,
  );
}
