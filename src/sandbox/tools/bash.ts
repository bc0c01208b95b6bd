import { BASH_DEFAULT_TIMEOUT_MS, bashInput } from "../../protocol/sandbox-tools.ts";
import { hasCode } from "../../runtime/errors.ts";
import { killsBetween, type MemoryEvents, readMemoryEvents } from "../memory-events.ts";
import { cleanTerminalText } from "../output.ts";
import { Shell, type ShellEnd, type ShellOptions } from "./shell.ts";
import type { Tool, ToolContext, ToolEnd } from "./tool.ts";

const RESET_NOTE =
  "The shell and everything it started were killed; the next command starts in a new shell, without the working directory and variables of this one.";
const LOSS_NOTE = "(the earlier shell had ended; this ran in a new one)";
const NO_CODE_NOTE =
  "(the exit code is not known: there was no room on the disk to note it, or a command removed the sandbox's own files)";
/** 128 + SIGKILL. */
const KILLED_EXIT_CODE = 137;

/** The `bash` tool: a persistent shell, a time limit, output in flat memory. */
export function createBashTool(options: ShellOptions): Tool {
  const shell = new Shell(options);
  return {
    name: "bash",
    input: bashInput,
    deadlineMs: undefined,
    run: async (raw, context) => {
      const input = bashInput.parse(raw);
      if (input.restart === true) {
        await shell.kill();
        shell.takeLoss();
      }
      if (input.command === undefined || input.command.trim() === "") {
        return input.restart === true
          ? { isError: false, notes: ["(the shell was restarted)"] }
          : { isError: true, notes: ["bash: `command` is required, unless `restart` is true"] };
      }
      if (input.command.includes("\0")) {
        return { isError: true, notes: ["bash: `command` must not contain a NUL character"] };
      }
      return await runCommand(shell, input.command, input.timeout_ms, context);
    },
    clean: cleanTerminalText,
    close: () => shell.kill(),
  };
}

async function runCommand(
  shell: Shell,
  command: string,
  timeoutMs = BASH_DEFAULT_TIMEOUT_MS,
  context: ToolContext,
): Promise<ToolEnd> {
  const before = readMemoryEvents();
  try {
    const end = await shell.run({
      command,
      timeoutMs,
      signal: context.signal,
      onOutput: (chunk) => context.output.write(chunk),
    });
    const memory = describeMemory(before);
    const lost = shell.takeLoss() && end.how !== "not-run" ? [LOSS_NOTE] : [];
    const notes = [...describeEnd(end, timeoutMs, context.signal), ...memory, ...lost];
    // A script that goes on after its children were killed may well end with 0.
    const isError = !wentWell(end) || memory.length > 0;
    return { isError, notes, aborted: end.how === "aborted" };
  } catch (error) {
    if (!hasCode(error, "UNAVAILABLE")) throw error;
    return { isError: true, notes: [`bash: ${error.message}`, ...describeMemory(before)] };
  }
}

/** `exit 0` is a success too. */
function wentWell(end: ShellEnd): boolean {
  return (end.how === "finished" || end.how === "shell-ended") && end.exitCode === 0;
}

function describeEnd(end: ShellEnd, timeoutMs: number, signal: AbortSignal): string[] {
  switch (end.how) {
    case "finished":
      if (end.exitCode === undefined) return [NO_CODE_NOTE];
      return end.exitCode === 0 ? [] : [`(exit code ${end.exitCode}${killedHint(end.exitCode)})`];
    case "shell-ended": {
      const how = end.signal === null ? `exit code ${end.exitCode}` : `signal ${end.signal}`;
      return [`(the command ended the shell: ${how}. ${RESET_NOTE})`];
    }
    case "unreported":
      return [
        `(the command is over and left the shell unable to say how it ended: its exit code is not known. ${RESET_NOTE})`,
      ];
    case "not-run":
      return [`bash: the command was not run: the shell did not take it. ${RESET_NOTE}`];
    case "timed-out":
      return [
        `(timed out after ${timeoutMs} ms; above is what was printed until then. ${RESET_NOTE})`,
      ];
    case "aborted":
      return [
        `(${Error.isError(signal.reason) ? signal.reason.message : "stopped"}. ${RESET_NOTE})`,
      ];
  }
}

function killedHint(exitCode: number): string {
  return exitCode === KILLED_EXIT_CODE ? ": killed by SIGKILL, often because memory ran out" : "";
}

function describeMemory(before: MemoryEvents): string[] {
  const after = readMemoryEvents();
  const kills = killsBetween(before, after);
  if (kills === 0) return [];
  const limit =
    after.limitBytes === undefined
      ? ""
      : `; its limit is ${Math.round(after.limitBytes / 2 ** 20)} MiB`;
  return [
    `(out of memory: the kernel killed ${kills} of the sandbox's processes during this call${limit})`,
  ];
}
