import { createParser } from "eventsource-parser";
import type { AppError } from "../../../runtime/errors.ts";
import type { Exchange } from "../../exchange.ts";
import { SIZES } from "../../limits.ts";
import { unusableAnswer } from "../../upstream-errors.ts";

/**
 * Passes a server's event stream on, one event in and one event out: each event is parsed, its data
 * goes through `relay`, and the frame is written anew, so no field of the server's text reaches the
 * harness unread.
 */
export interface RelayHooks {
  /** The JSON text to pass on, or undefined to drop the event. Throws to end the stream. */
  relay(data: string): string | undefined;
  /** The event id as the harness may see it. */
  sealId(id: string): string;
}

export async function relayEvents(
  source: AsyncIterable<Uint8Array>,
  exchange: Exchange,
  hooks: RelayHooks,
): Promise<void> {
  let frames: string[] = [];
  const parser = createParser({
    maxBufferSize: SIZES.sseEvent,
    onEvent: ({ id, data }) => frames.push(...frameOf(id, data, hooks)),
    onComment: () => frames.push(":\n\n"),
    onRetry: (ms) => frames.push(`retry: ${ms}\n\n`),
    onError: (error) => {
      if (error.type === "max-buffer-size-exceeded") throw tooLong("an event", SIZES.sseEvent);
    },
  });
  const decoder = new TextDecoder();
  let size = 0;
  for await (const chunk of source) {
    size += chunk.length;
    if (size > SIZES.sseStream) throw tooLong("the stream", SIZES.sseStream);
    try {
      parser.feed(decoder.decode(chunk, { stream: true }));
    } finally {
      // What was good before a bad event is passed on before the stream ends.
      await exchange.write(frames.join(""));
      frames = [];
    }
  }
}

function frameOf(id: string | undefined, data: string, hooks: RelayHooks): string[] {
  const idLine = id === undefined || id === "" ? "" : `id: ${hooks.sealId(id)}\n`;
  // An event without data only tells the client from where it may resume.
  if (data === "") return idLine === "" ? [] : [`${idLine}data:\n\n`];
  const text = hooks.relay(data);
  return text === undefined ? [] : [`${idLine}${messageFrame(text)}`];
}

/** `json` has no line break outside an escape, so it cannot end the frame. */
export function messageFrame(json: string): string {
  return `event: message\ndata: ${json}\n\n`;
}

function tooLong(what: string, limit: number): AppError {
  return unusableAnswer(`${what} of the MCP server is longer than ${limit} bytes`, { limit });
}
