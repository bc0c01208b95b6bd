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
  relay(data: string): Promise<string | undefined>;
  /** The event id as the harness may see it. */
  sealId(id: string): string;
}

/** Rejects with what `source` rejects with, or an AbortError when `until` aborts during a write. */
export async function relayEvents(
  source: AsyncIterable<Uint8Array>,
  exchange: Exchange,
  hooks: RelayHooks,
  until: AbortSignal,
): Promise<void> {
  let read: (() => Promise<string>)[] = [];
  const parser = createParser({
    maxBufferSize: SIZES.sseEvent,
    onEvent: ({ id, data }) => read.push(() => frameOf(id, data, hooks)),
    onComment: () => read.push(async () => ":\n\n"),
    onRetry: (ms) => read.push(async () => `retry: ${ms}\n\n`),
    onError: (error) => {
      if (error.type === "max-buffer-size-exceeded") throw tooLong("an event", SIZES.sseEvent);
    },
  });
  const decoder = new TextDecoder();
  let size = 0;
  for await (const chunk of source) {
    size += chunk.length;
    exchange.memory?.add(chunk.length);
    if (size > SIZES.sseStream) throw tooLong("the stream", SIZES.sseStream);
    let frames = "";
    try {
      try {
        parser.feed(decoder.decode(chunk, { stream: true }));
      } finally {
        for (const frame of read) frames += await frame();
      }
    } finally {
      // What was good before a bad event is passed on before the stream ends.
      await exchange.write(frames, until);
      if (read.length > 0) exchange.memory?.release();
      read = [];
    }
  }
}

async function frameOf(id: string | undefined, data: string, hooks: RelayHooks): Promise<string> {
  const idLine = id === undefined || id === "" ? "" : `id: ${hooks.sealId(id)}\n`;
  // An event without data only tells the client from where it may resume.
  if (data === "") return idLine === "" ? "" : `${idLine}data:\n\n`;
  const text = await hooks.relay(data);
  return text === undefined ? "" : `${idLine}${messageFrame(text)}`;
}

/** `json` has no line break outside an escape, so it cannot end the frame. */
export function messageFrame(json: string): string {
  return `event: message\ndata: ${json}\n\n`;
}

function tooLong(what: string, limit: number): AppError {
  return unusableAnswer(`${what} of the MCP server is longer than ${limit} bytes`, { limit });
}
