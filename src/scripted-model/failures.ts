import type { Fault } from "./script.ts";
import type { StreamStep } from "./stream.ts";

export type StreamFault = Extract<Fault, { afterDeltas: number }>;

/** The parts of a reply that a fault needs. */
export interface RawReply {
  raw: {
    writeHead(status: number, headers: Record<string, string>): unknown;
    write(text: string): boolean;
    end(): unknown;
    destroy(): unknown;
    on(event: "close", listener: () => void): unknown;
  };
  hijack(): void;
}

/** Takes the place of the whole answer. */
export async function failBefore(
  kind: "timeout" | "hang_up" | "malformed",
  reply: RawReply,
): Promise<void> {
  reply.hijack();
  switch (kind) {
    case "malformed":
      reply.raw.writeHead(200, { "content-type": "text/event-stream; charset=utf-8" });
      reply.raw.write('event: message_start\ndata: {"type":"message_start","message":{\n\n');
      reply.raw.end();
      return;
    case "hang_up":
      reply.raw.destroy();
      return;
    case "timeout":
      // Hold the connection until the caller gives up.
      await new Promise<void>((resolve) => reply.raw.on("close", resolve));
      return;
  }
}

/** Ends a stream that has begun. */
export async function failWithin(
  fault: StreamFault,
  reply: RawReply,
  gone: AbortSignal,
): Promise<void> {
  switch (fault.kind) {
    case "cut_stream":
      reply.raw.destroy();
      return;
    case "overloaded_in_stream": {
      const error = { type: "overloaded_error", message: "Overloaded" };
      reply.raw.write(serverSentEvent("error", { type: "error", error }));
      reply.raw.end();
      return;
    }
    case "stall_stream":
      if (gone.aborted) return;
      await new Promise<void>((resolve) =>
        gone.addEventListener("abort", () => resolve(), { once: true }),
      );
      return;
  }
}

/** With `afterDeltas: 0` before the first event; else before the delta that would be one too many, or the end. */
export function isDue(fault: StreamFault, step: StreamStep, deltas: number): boolean {
  if (fault.afterDeltas === 0 || step.event === "message_delta") return true;
  return deltas >= fault.afterDeltas && step.event === "content_block_delta";
}

/** Error type and text of the real API for a status. */
export function apiError(status: number): [type: string, message: string] {
  switch (status) {
    case 401:
      return ["authentication_error", "invalid x-api-key"];
    case 402:
      return ["billing_error", "Your credit balance is too low."];
    case 403:
      return ["permission_error", "Not allowed."];
    case 413:
      return ["request_too_large", "Request exceeds the maximum size."];
    case 429:
      return ["rate_limit_error", "This request would exceed your rate limit."];
    case 529:
      return ["overloaded_error", "Overloaded"];
    default:
      return status < 500
        ? ["invalid_request_error", "Bad request."]
        : ["api_error", "Internal server error"];
  }
}

export function serverSentEvent(event: string, data: Record<string, unknown>): string {
  return `event: ${event}\ndata: ${JSON.stringify(data)}\n\n`;
}
