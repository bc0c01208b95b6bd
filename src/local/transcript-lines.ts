import type { SessionEvent } from "../protocol/session-event.ts";

/**
 * A session's events as the lines of a transcript for people. Pure: the same events give the same
 * lines. Text of the model is printed whole when its request ends. What is foreign in a line may
 * hold anything, line ends too: whoever prints it makes it visible.
 */
export function transcriptLines(event: SessionEvent): string[] {
  switch (event.type) {
    case "session.created":
      return [`session   agent ${event.data.agent} (revision ${event.data.agentRevision})`];
    case "user.message":
      return indent("user", event.data.content.map((block) => block.text).join("\n"));
    case "model.request_end":
      return event.data.message.flatMap((block) =>
        block.type === "text" && typeof block["text"] === "string"
          ? indent("model", block["text"])
          : [],
      );
    case "model.request_abandoned":
      return [`harness   model request abandoned (${event.data.reason})`];
    case "tool.intent":
      return indent("tool", `${event.data.name} ${inputText(event.data.input)}`);
    case "tool.result":
      return indent(resultWord(event.data), event.data.content);
    case "sandbox.requested":
      return [`sandbox   requested (generation ${event.data.generation})`];
    case "sandbox.provisioned":
      return [`sandbox   ready at ${event.data.address}`];
    case "sandbox.lost":
      return indent("sandbox", `lost: ${event.data.reason}: ${event.data.message}`);
    case "session.error":
      return [`error     ${event.data.type}: ${event.data.message} (${event.data.retry_status})`];
    case "session.status_idle":
      return [`session   idle: ${event.data.stop_reason}`];
    case "session.terminated":
      return [`session   terminated: ${event.data.reason}`];
    case "context.compacted":
      return [`context   events ${event.data.from} to ${event.data.to} replaced by a summary`];
    case "model.request_start":
    case "sandbox.released":
    case "tool.started":
    case "session.resume_requested":
    case "session.stop_requested":
    case "session.suspend_requested":
    case "system.message":
    case "user.custom_tool_result":
    case "user.interrupt":
    case "user.tool_confirmation":
      return [];
  }
}

const MAX_LINES = 12;

function indent(label: string, text: string): string[] {
  const lines = text.trimEnd().split("\n");
  const shown =
    lines.length > MAX_LINES
      ? [
          ...lines.slice(0, MAX_LINES / 2),
          `… ${lines.length - MAX_LINES} more lines …`,
          ...lines.slice(-MAX_LINES / 2),
        ]
      : lines;
  return shown.map((line, i) => `${(i === 0 ? label : "").padEnd(10)}${line}`);
}

function inputText(input: Record<string, unknown>): string {
  const command = input["command"];
  return typeof command === "string" && Object.keys(input).length === 1
    ? `$ ${command}`
    : JSON.stringify(input).slice(0, 400);
}

function resultWord(result: { is_error: boolean; outcome: string }): string {
  if (result.outcome !== "known") return result.outcome;
  return result.is_error ? "failed" : "result";
}
