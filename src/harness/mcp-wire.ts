import { createParser, type EventSourceMessage } from "eventsource-parser";
import { isNumberText, parseExact } from "../protocol/exact-json.ts";
import { withDeadline } from "../runtime/abort.ts";
import type { Clock } from "../runtime/clock.ts";

/**
 * What lies between the MCP client and the network. The client reads whatever a server sends; here it
 * is held to a size, pings are answered one at a time and up to a number, and the digits of numbers
 * are kept, which the client's own parser does not do.
 */

const WIRE_LIMITS = {
  /** Of one message; a result has far less room in the log. */
  messageBytes: 8 * 1024 * 1024,
  /** Of one event stream. */
  streamBytes: 64 * 1024 * 1024,
  messages: 10_000,
  /** In one stream: a server that asks every three seconds during a call of five minutes. */
  pings: 100,
  pingMs: 5000,
} as const;

/** Under this name a result carries its own JSON text when a number in it would lose digits. */
const EXACT = "drover.dev/exact-json";

/** A result as the server wrote it. */
export function exactResult(result: Record<string, unknown>): Record<string, unknown> {
  const text = result[EXACT];
  const exact: unknown = typeof text === "string" ? parseExact(text) : result;
  return isRecord(exact) ? exact : {};
}

/** A `fetch` for the MCP client. */
export function guardedFetch(send: typeof fetch, clock: Clock): typeof fetch {
  return async (input, init) => {
    const response = await send(input, init);
    if (!response.ok || response.body === null) return response;
    const type = response.headers.get("content-type")?.split(";")[0]?.trim().toLowerCase();
    const id = requestId(init);
    if (type === "application/json") {
      return withBody(response, await readMessage(response.body, id));
    }
    if (type !== "text/event-stream") return response;
    const answerPing = (ping: unknown) =>
      withDeadline(clock, WIRE_LIMITS.pingMs, "answering a ping", async (signal) => {
        const headers = new Headers(init?.headers);
        headers.set("content-type", "application/json");
        headers.set("accept", "application/json, text/event-stream");
        headers.delete("last-event-id");
        const body = JSON.stringify({ jsonrpc: "2.0", id: ping, result: {} });
        const answered = await send(input, { method: "POST", headers, body, signal });
        await answered.body?.cancel();
      });
    return withBody(response, response.body.pipeThrough(guardedEvents(id, answerPing)));
  };
}

function withBody(response: Response, body: string | ReadableStream<Uint8Array>): Response {
  const { status, statusText } = response;
  const headers = new Headers(response.headers);
  headers.delete("content-length");
  return new Response(body, { status, statusText, headers });
}

type RequestId = string | number | undefined;

/** Of the request that the response answers. */
function requestId(init: RequestInit | undefined): RequestId {
  if (typeof init?.body !== "string") return undefined;
  const message: unknown = JSON.parse(init.body);
  if (!isRecord(message) || typeof message["method"] !== "string") return undefined;
  const id = message["id"];
  return typeof id === "string" || typeof id === "number" ? id : undefined;
}

async function readMessage(body: ReadableStream<Uint8Array>, id: RequestId): Promise<string> {
  const decoder = new TextDecoder();
  let text = "";
  let size = 0;
  for await (const chunk of body) {
    size += chunk.length;
    if (size > WIRE_LIMITS.messageBytes) {
      return lastWord(id, `an answer of more than ${WIRE_LIMITS.messageBytes} bytes`);
    }
    text += decoder.decode(chunk, { stream: true });
  }
  return keepingDigits(text);
}

/** Reads the events of a stream and writes them anew; past a limit, an error is the last of them. */
function guardedEvents(
  id: RequestId,
  answerPing: (id: unknown) => Promise<void>,
): TransformStream<Uint8Array, Uint8Array> {
  const encoder = new TextEncoder();
  const events = new EventReader();
  let pings = 0;
  return new TransformStream({
    async transform(chunk, controller) {
      const pass = (frame: string) => controller.enqueue(encoder.encode(frame));
      for (const event of events.read(chunk)) {
        const ping = pingId(event.data);
        pings += ping === undefined ? 0 : 1;
        if (pings > WIRE_LIMITS.pings) events.tooMuch ??= `more than ${WIRE_LIMITS.pings} pings`;
        if (events.tooMuch !== undefined) break;
        // One at a time: the rest of the stream waits until this one is dealt with.
        if (ping !== undefined) await answerPing(ping).catch(() => {});
        else pass(frameOf(event));
      }
      if (events.tooMuch === undefined) return;
      pass(frameOf({ data: lastWord(id, events.tooMuch) }));
      controller.terminate();
    },
  });
}

type ReadEvent = Partial<EventSourceMessage> & { data: string; retryMs?: number };

/** The events in the chunks of a stream, until there is too much of them. */
class EventReader {
  /** What the server has sent too much of. */
  tooMuch: string | undefined;
  #read: ReadEvent[] = [];
  #bytes = 0;
  #messages = 0;
  readonly #decoder = new TextDecoder();
  readonly #parser = createParser({
    maxBufferSize: WIRE_LIMITS.messageBytes,
    onEvent: (event) => this.#read.push(event),
    onRetry: (retryMs) => this.#read.push({ data: "", retryMs }),
    onError: ({ type }) => {
      if (type !== "max-buffer-size-exceeded") return;
      this.tooMuch ??= `an event of more than ${WIRE_LIMITS.messageBytes} bytes`;
    },
  });

  read(chunk: Uint8Array): ReadEvent[] {
    this.#bytes += chunk.length;
    if (this.#bytes > WIRE_LIMITS.streamBytes) {
      this.tooMuch ??= `a stream of more than ${WIRE_LIMITS.streamBytes} bytes`;
      return [];
    }
    this.#parser.feed(this.#decoder.decode(chunk, { stream: true }));
    const read = this.#read;
    this.#read = [];
    this.#messages += read.length;
    if (this.#messages > WIRE_LIMITS.messages) {
      this.tooMuch ??= `more than ${WIRE_LIMITS.messages} messages in one stream`;
    }
    return read;
  }
}

function frameOf({ id, event, data, retryMs }: ReadEvent): string {
  const lines = [
    ...(retryMs === undefined ? [] : [`retry: ${retryMs}`]),
    ...(id === undefined || id === "" ? [] : [`id: ${id}`]),
    ...(event === undefined ? [] : [`event: ${event}`]),
    ...(data === ""
      ? ["data:"]
      : keepingDigits(data)
          .split("\n")
          .map((line) => `data: ${line}`)),
  ];
  return `${lines.join("\n")}\n\n`;
}

/** A ping is short; what is longer is not looked at. */
const PING_CHARS = 2000;

function pingId(data: string): unknown {
  if (data.length > PING_CHARS || !data.includes('"ping"')) return undefined;
  const message = parsedOrNone(data);
  return isRecord(message) && message["method"] === "ping" ? message["id"] : undefined;
}

/** The same message; a result with numbers that would change goes as text. */
function keepingDigits(text: string): string {
  const message = parsedOrNone(text);
  if (!isRecord(message)) return text;
  const { result } = message;
  // The client itself reads the answer to `initialize`.
  if (!isRecord(result) || "protocolVersion" in result || !holdsNumberText(result)) return text;
  return JSON.stringify({ ...message, result: { [EXACT]: JSON.stringify(result) } });
}

function parsedOrNone(text: string): unknown {
  try {
    return parseExact<unknown>(text);
  } catch {
    // The client says what is wrong with it.
    return undefined;
  }
}

function holdsNumberText(value: unknown): boolean {
  if (typeof value !== "object" || value === null) return false;
  return isNumberText(value) || Object.values(value).some(holdsNumberText);
}

/** The answer in the place of one that is not read further. */
function lastWord(id: RequestId, tooMuch: string): string {
  const message = `the MCP server has sent ${tooMuch}, and is not read further; whether the call had an effect is not known`;
  return JSON.stringify({ jsonrpc: "2.0", id: id ?? null, error: { code: -32_000, message } });
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return (
    typeof value === "object" && value !== null && !Array.isArray(value) && !isNumberText(value)
  );
}
