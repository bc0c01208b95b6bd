import { connect, type Socket } from "node:net";

export interface Answer {
  status: number;
  /** Everything after the head, as it came: also the frames of a chunked body. */
  body: string;
}

/** One keep-alive connection that has at most one request in flight; raw, to cost little. */
export class RawConnection {
  readonly #socket: Socket;
  #text = "";
  #waiting: PromiseWithResolvers<Answer> | undefined;

  static async open(port: number): Promise<RawConnection> {
    const socket = connect({ port, host: "127.0.0.1", noDelay: true });
    await new Promise<void>((resolve, reject) => {
      socket.once("connect", resolve);
      socket.once("error", reject);
    });
    return new RawConnection(socket);
  }

  private constructor(socket: Socket) {
    this.#socket = socket;
    socket.setEncoding("latin1");
    socket.on("data", (chunk: string) => this.#take(chunk));
    socket.on("error", (error) => this.#waiting?.reject(error));
    socket.on("close", () => this.#waiting?.reject(new Error("the connection was closed")));
  }

  send(request: string): Promise<Answer> {
    this.#waiting = Promise.withResolvers();
    this.#socket.write(request, "latin1");
    return this.#waiting.promise;
  }

  close(): void {
    this.#waiting = undefined;
    this.#socket.destroy();
  }

  #take(chunk: string): void {
    this.#text += chunk;
    const end = this.#text.indexOf("\r\n\r\n");
    if (end < 0) return;
    const head = this.#text.slice(0, end).toLowerCase();
    const body = this.#text.slice(end + 4);
    if (!isComplete(head, body)) return;
    this.#text = "";
    this.#waiting?.resolve({ status: Number(head.slice(9, 12)), body });
  }
}

function isComplete(head: string, body: string): boolean {
  const length = /^content-length: *(\d+)/m.exec(head)?.[1];
  return length === undefined ? body.endsWith("0\r\n\r\n") : body.length >= Number(length);
}

export interface RequestForm {
  port: number;
  path: string;
  token: string;
}

/** A `tools/call`; `id` has ten digits, so that all requests are equally long. */
export function callRequest(form: RequestForm, id: number, params: object): string {
  return post(form, { jsonrpc: "2.0", id, method: "tools/call", params });
}

export function post({ port, path, token }: RequestForm, message: object): string {
  const body = JSON.stringify(message);
  return [
    `POST ${path} HTTP/1.1`,
    `host: 127.0.0.1:${port}`,
    `authorization: Bearer ${token}`,
    "content-type: application/json",
    "accept: application/json, text/event-stream",
    `content-length: ${body.length}`,
    "",
    body,
  ].join("\r\n");
}
