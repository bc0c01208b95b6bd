import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import {
  createMcpHandler,
  McpServer,
  WebStandardStreamableHTTPServerTransport,
} from "@modelcontextprotocol/server";
import { z } from "zod";
import type { Cleanups } from "../../cleanups.ts";

/** A real MCP server that wants a bearer token, one of several or, being public, none; and gives back, as text, what it was sent. */
export interface RealMcpServer {
  authority: string;
  url: string;
  /** Names of the tools that were called, in order. */
  calls: string[];
  authorizations: (string | undefined)[];
  sessionIds: (string | undefined)[];
}

export async function startMcpServer(
  cleanups: Cleanups,
  options: { token: string | readonly string[] | undefined; stateful?: boolean },
): Promise<RealMcpServer> {
  const server: RealMcpServer = {
    authority: "",
    url: "",
    calls: [],
    authorizations: [],
    sessionIds: [],
  };
  const factory = () => toolServer(server);
  const handle = options.stateful === true ? statefulHandler(factory) : createMcpHandler(factory);
  const { token } = options;
  const accepted = token === undefined ? undefined : [token].flat().map((each) => `Bearer ${each}`);
  const http = createServer((request, response) => {
    const { authorization } = request.headers;
    server.authorizations.push(authorization);
    server.sessionIds.push(request.headers["mcp-session-id"]?.toString());
    if (accepted?.includes(authorization ?? "") === false) {
      response.writeHead(401, { "www-authenticate": "Bearer" }).end();
      return;
    }
    toWebRequest(request)
      .then(async (webRequest) => await handle.fetch(webRequest))
      .then(async (answer) => await writeAnswer(answer, response))
      .catch(() => response.destroy());
  });
  await new Promise<void>((resolve) => http.listen(0, "127.0.0.1", resolve));
  cleanups.add(async () => {
    http.closeAllConnections();
    await new Promise((resolve) => http.close(resolve));
  });
  server.authority = `127.0.0.1:${(http.address() as AddressInfo).port}`;
  server.url = `http://${server.authority}/mcp`;
  return server;
}

function toolServer(record: RealMcpServer): McpServer {
  const server = new McpServer({ name: "docs", version: "1.0.0" });
  for (const name of ["echo", "delete"]) {
    server.registerTool(
      name,
      { description: `the tool ${name}`, inputSchema: z.object({ text: z.string() }) },
      async ({ text }) => {
        record.calls.push(name);
        const authorization = record.authorizations.at(-1) ?? "";
        return { content: [{ type: "text", text: `${text} ${authorization}` }] };
      },
    );
  }
  return server;
}

/** One transport per `Mcp-Session-Id`, as servers of the protocol's first era keep them. */
function statefulHandler(factory: () => McpServer) {
  const transports = new Map<string, WebStandardStreamableHTTPServerTransport>();
  return {
    async fetch(request: Request): Promise<Response> {
      const id = request.headers.get("mcp-session-id");
      const known = id === null ? undefined : transports.get(id);
      if (id !== null && known === undefined) return new Response(null, { status: 404 });
      if (known !== undefined) return await known.handleRequest(request);
      const transport = new WebStandardStreamableHTTPServerTransport({
        sessionIdGenerator: () => crypto.randomUUID(),
        onsessioninitialized: (newId: string) => {
          transports.set(newId, transport);
        },
      });
      await factory().connect(transport);
      return await transport.handleRequest(request);
    },
  };
}

async function toWebRequest(request: IncomingMessage): Promise<Request> {
  const chunks: Buffer[] = [];
  for await (const chunk of request) chunks.push(Buffer.from(chunk));
  const headers = new Headers();
  for (const [name, value] of Object.entries(request.headers)) {
    if (typeof value === "string") headers.set(name, value);
  }
  const hasBody = request.method === "POST";
  return new Request(`http://${request.headers.host}${request.url}`, {
    method: request.method ?? "GET",
    headers,
    ...(hasBody ? { body: Buffer.concat(chunks) } : {}),
  });
}

async function writeAnswer(answer: Response, response: ServerResponse): Promise<void> {
  response.writeHead(answer.status, Object.fromEntries(answer.headers));
  response.flushHeaders();
  if (answer.body !== null) for await (const chunk of answer.body) response.write(chunk);
  response.end();
}
