import { createServer, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

export interface McpRequest {
  id: number | string;
  method: string;
  params: { name?: string; cursor?: string; arguments?: Record<string, unknown> };
  /** The MCP session it belongs to. */
  session: string | undefined;
  raw: string;
}

/** The JSON text of a result, or undefined when `response` is answered by other means. */
export type McpAnswer = (request: McpRequest, response: ServerResponse) => unknown;

/**
 * An MCP server over streamable HTTP that answers `tools/list` and `tools/call` as a test says: with a
 * result, `{ error }`, a text that becomes the body as it is, or by itself.
 */
export class McpEndpoint {
  readonly requests: McpRequest[] = [];
  sessions = 0;
  readonly #server: Server;

  constructor(answer: McpAnswer) {
    this.#server = createServer((request, response) => {
      let raw = "";
      request.on("data", (chunk: Buffer) => {
        raw += chunk.toString("utf8");
      });
      request.on("end", () => {
        if (request.method !== "POST") {
          response.writeHead(405).end();
          return;
        }
        const { id, method = "", params = {} } = JSON.parse(raw) as Partial<McpRequest>;
        const session = request.headers["mcp-session-id"]?.toString();
        if (id === undefined || method === "") {
          response.writeHead(202).end();
          return;
        }
        const asked: McpRequest = { id, method, params, session, raw };
        this.requests.push(asked);
        this.#answer(asked, response, answer).catch(() => response.destroy());
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

  async #answer(asked: McpRequest, response: ServerResponse, answer: McpAnswer): Promise<void> {
    if (asked.method === "initialize") {
      this.sessions += 1;
      const result = {
        protocolVersion: "2025-06-18",
        capabilities: { tools: {} },
        serverInfo: { name: "endpoint", version: "1" },
      };
      reply(response, asked.id, { result }, { "mcp-session-id": `s${this.sessions}` });
      return;
    }
    const given = await answer(asked, response);
    if (given === undefined || response.destroyed) return;
    const isError = typeof given === "object" && given !== null && "error" in given;
    reply(
      response,
      asked.id,
      typeof given === "string" ? given : isError ? given : { result: given },
    );
  }
}

function reply(
  response: ServerResponse,
  id: number | string,
  body: unknown,
  headers: Record<string, string> = {},
): void {
  const text =
    typeof body === "string" ? body : JSON.stringify({ jsonrpc: "2.0", id, ...Object(body) });
  response.writeHead(200, { "content-type": "application/json", ...headers }).end(text);
}

export function toolNamed(name: string, more: object = {}) {
  return { name, inputSchema: { type: "object" }, ...more };
}

export function textResult(text: string) {
  return { content: [{ type: "text", text }] };
}
