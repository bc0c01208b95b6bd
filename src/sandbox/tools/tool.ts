import type { z } from "zod";
import type { OutputRecorder } from "../output-store.ts";

/** How a tool ended. Its output is in the recorder; notes are lines for the model below it. */
export interface ToolEnd {
  isError: boolean;
  notes: readonly string[];
  /** True when it stopped because its signal aborted. */
  aborted?: boolean;
}

export interface ToolContext {
  /** Aborts with an Error whose message says to the model why. */
  signal: AbortSignal;
  output: OutputRecorder;
}

/** One tool of the sandbox. `run` gets input that fits `input`, and throws only for bugs of ours. */
export interface Tool {
  name: string;
  input: z.ZodType;
  /** Milliseconds until the call is given up; undefined when the tool keeps its own limit. */
  deadlineMs: number | undefined;
  run(input: unknown, context: ToolContext): Promise<ToolEnd>;
  /** How raw output is turned into text. */
  clean(text: string): string;
  close(): Promise<void>;
}
