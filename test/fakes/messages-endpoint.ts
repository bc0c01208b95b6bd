import { createServer, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

/** One request to the endpoint, and how it may be answered. */
export interface EndpointCall {
  /** From 1. */
  n: number;
  /** The request as it came. */
  raw: string;
  response: ServerResponse;
  /** Writes these events as frames; the response stays open. */
  say: (events: readonly object[]) => void;
}

/**
 * An endpoint of the Messages API that answers byte by byte as a test says; for answers that the
 * scripted model would never give.
 */
export class MessagesEndpoint {
  readonly requests: string[] = [];
  readonly #server: Server;

  constructor(answer: (call: EndpointCall) => void) {
    this.#server = createServer((request, response) => {
      const chunks: Buffer[] = [];
      request.on("data", (chunk: Buffer) => chunks.push(chunk));
      request.on("end", () => {
        const raw = Buffer.concat(chunks).toString("utf8");
        const n = this.requests.push(raw);
        answer({ n, raw, response, say: (events) => say(response, events) });
      });
    });
  }

  async listen(): Promise<string> {
    await new Promise<void>((resolve) => this.#server.listen(0, "127.0.0.1", resolve));
    const { port } = this.#server.address() as AddressInfo;
    return `http://127.0.0.1:${port}`;
  }

  async close(): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }
}

function say(response: ServerResponse, events: readonly object[]): void {
  if (!response.headersSent) response.writeHead(200, { "content-type": "text/event-stream" });
  for (const event of events) response.write(`data: ${JSON.stringify(event)}\n\n`);
}

export interface Spoken {
  type: string;
  text?: string;
  id?: string;
  name?: string;
  /** Of a call: the text of its input. */
  json?: string;
}

/** The events of a whole answer. */
export function answerEvents(
  blocks: readonly Spoken[],
  stopReason: string,
  usage: object | null | undefined = { input_tokens: 10, output_tokens: 1 },
): object[] {
  const message = {
    id: "msg",
    role: "assistant",
    content: [],
    ...(usage === undefined ? {} : { usage }),
  };
  return [
    { type: "message_start", message },
    ...blocks.flatMap(({ json, text, ...block }, index) => [
      {
        type: "content_block_start",
        index,
        content_block: block.type === "text" ? { ...block, text: "" } : { ...block, input: {} },
      },
      {
        type: "content_block_delta",
        index,
        delta:
          block.type === "text"
            ? { type: "text_delta", text }
            : { type: "input_json_delta", partial_json: json ?? "" },
      },
      { type: "content_block_stop", index },
    ]),
    { type: "message_delta", delta: { stop_reason: stopReason }, usage: { output_tokens: 5 } },
    { type: "message_stop" },
  ];
}
