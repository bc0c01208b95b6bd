import {
  createServer,
  request as httpRequest,
  type IncomingMessage,
  type ServerResponse,
} from "node:http";

/**
 * The edge as a sandbox sees it: `/git/<name>/…` goes on to a git host, with the credential that the
 * sandbox does not have, if the caller shows a token that is known here. No policy.
 */
export class FakeEdge {
  /** `Authorization` of every request, as it came. */
  readonly shown: string[] = [];
  /** Tokens that are let in; any when undefined. */
  accepted: ReadonlySet<string> | undefined;
  /** Requests wait until this resolves. */
  gate: Promise<void> = Promise.resolve();
  readonly #upstreams: Map<string, { url: string; token: string }>;
  readonly #server = createServer((request, response) => {
    this.#handle(request, response).catch(() => response.destroy());
  });

  constructor(upstreams: Record<string, { url: string; token: string }>) {
    this.#upstreams = new Map(Object.entries(upstreams));
  }

  /** The URL that sandboxes are given. */
  async start(): Promise<string> {
    await new Promise<void>((resolve) => this.#server.listen(0, "127.0.0.1", resolve));
    const address = this.#server.address();
    if (address === null || typeof address === "string") throw new Error("no port");
    return `http://127.0.0.1:${address.port}`;
  }

  async close(): Promise<void> {
    await new Promise<void>((resolve) => {
      this.#server.close(() => resolve());
      this.#server.closeAllConnections();
    });
  }

  async #handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const authorization = request.headers.authorization ?? "";
    this.shown.push(authorization);
    await this.gate;
    const [, name = "", rest = ""] =
      /^\/git\/([^/]+?)(?:\.git)?(\/.*)$/.exec(request.url ?? "") ?? [];
    const upstream = this.#upstreams.get(name);
    const token = /^Bearer (.+)$/.exec(authorization)?.[1] ?? "";
    if (this.accepted?.has(token) === false || upstream === undefined) {
      request.resume();
      response.writeHead(upstream === undefined ? 404 : 403, { "content-type": "text/plain" });
      response.end(`the edge knows no such ${upstream === undefined ? "repository" : "token"}\n`);
      return;
    }
    const headers = { ...request.headers, host: new URL(upstream.url).host };
    const basic = Buffer.from(`x-access-token:${upstream.token}`).toString("base64");
    const onward = httpRequest(
      `${upstream.url}${rest}`,
      { method: request.method ?? "GET", headers: { ...headers, authorization: `Basic ${basic}` } },
      (answer) => {
        response.writeHead(answer.statusCode ?? 502, answer.headers);
        answer.pipe(response);
      },
    );
    onward.on("error", () => response.destroy());
    request.pipe(onward);
  }
}
