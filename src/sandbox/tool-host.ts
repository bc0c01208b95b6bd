import { withDeadline } from "../runtime/abort.ts";
import type { Clock } from "../runtime/clock.ts";
import { AppError, describeError, hasCode } from "../runtime/errors.ts";
import type { Logger } from "../runtime/logger.ts";
import type { OutputStore } from "./output-store.ts";
import type { RunnerCall } from "./runner-link.ts";
import type { RunResult } from "./runner-protocol.ts";
import { TailReporter } from "./tail-reporter.ts";
import { describeInput } from "./tool-input.ts";
import type { Tool, ToolEnd } from "./tools/tool.ts";

export interface ToolHostOptions {
  tools: ReadonlyMap<string, Tool>;
  outputs: Pick<OutputStore, "record">;
  clock: Clock;
  logger: Logger;
}

/** Runs one tool call and says how it ended, in words for the model. */
export class ToolHost {
  readonly #options: ToolHostOptions;

  constructor(options: ToolHostOptions) {
    this.#options = options;
  }

  /** Never rejects. `onTail` hears of the last output while the call runs. */
  async run(
    call: RunnerCall,
    signal: AbortSignal,
    onTail: (tail: Buffer) => void,
  ): Promise<RunResult> {
    const tool = this.#options.tools.get(call.name);
    if (tool === undefined) {
      const names = [...this.#options.tools.keys()].join(", ");
      return toolError(`there is no tool "${call.name}" in this sandbox; it has ${names}`);
    }
    const input = tool.input.safeParse(call.input);
    if (!input.success) return toolError(describeInput(tool.name, input.error));
    const reporter = new TailReporter(this.#options.clock, onTail);
    const output = this.#options.outputs.record(call.id, (chunk) => reporter.write(chunk));
    let end: ToolEnd;
    try {
      end = await this.#withinDeadline(tool, signal, (limited) =>
        tool.run(input.data, { signal: limited, output }),
      );
    } catch (error) {
      end = this.#describeFailure(tool.name, call.id, error);
    }
    reporter.close();
    const { text, whole, totalBytes } = output.end((raw) => tool.clean(raw));
    // Who sees a cut output of a command wants to know that it went well.
    const notes = !whole && !end.isError ? [...end.notes, "(exit code 0)"] : end.notes;
    const parts = [text, ...notes].filter((part) => part !== "");
    return {
      content: parts.join("\n").toWellFormed() || "(no output)",
      is_error: end.isError,
      aborted: end.aborted === true,
      outputBytes: totalBytes,
    };
  }

  async close(): Promise<void> {
    await Promise.all([...this.#options.tools.values()].map((tool) => tool.close()));
  }

  async #withinDeadline(
    tool: Tool,
    signal: AbortSignal,
    work: (signal: AbortSignal) => Promise<ToolEnd>,
  ): Promise<ToolEnd> {
    if (tool.deadlineMs === undefined) return await work(signal);
    const end = await withDeadline(this.#options.clock, tool.deadlineMs, tool.name, work, signal);
    if (end.aborted !== true || signal.aborted) return end;
    // The tool heard of the deadline before we did.
    throw new AppError("TIMEOUT", `${tool.name} did not finish within ${tool.deadlineMs} ms`);
  }

  #describeFailure(name: string, id: string, error: unknown): ToolEnd {
    if (hasCode(error, "TIMEOUT")) return { isError: true, notes: [error.message] };
    this.#options.logger.error({ toolCallId: id, err: describeError(error) }, "tool failed");
    return {
      isError: true,
      notes: [`${name} failed inside the sandbox; this is a bug of the tool`],
    };
  }
}

function toolError(content: string): RunResult {
  return { content, is_error: true, aborted: false, outputBytes: 0 };
}
