/**
 * An MCP server that wants a bearer token and gives back, as text, the header it got: so a test sees
 * that the credential arrived, and that no answer carries it further. Runs in the cluster, from the
 * control-plane image; see notes.ts.
 */
import { createHash } from "node:crypto";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import { createMcpHandler, McpServer } from "@modelcontextprotocol/server";
import { z } from "zod";

const accepted = (process.env["NOTES_TOKEN"] ?? "").split(",").map((token) => `Bearer ${token}`);
let authorization = "";
/** SHA-256 of the header of each tool call, oldest first: which credential came, not what it is. */
const seen: string[] = [];

const handler = createMcpHandler(() => {
  const server = new McpServer({ name: "notes", version: "1.0.0" });
  server.registerTool(
    "add_note",
    { description: "Keeps a note.", inputSchema: z.object({ text: z.string() }) },
    async ({ text }) => {
      seen.push(createHash("sha256").update(authorization).digest("hex"));
      return { content: [{ type: "text", text: `noted "${text}" for ${authorization}` }] };
    },
  );
  return server;
});

async function serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
  const chunks: Buffer[] = [];
  for await (const chunk of request) chunks.push(Buffer.from(chunk));
  if (request.url === "/healthz") {
    response.end("ok");
    return;
  }
  if (request.url === "/seen") {
    response.end(JSON.stringify(seen));
    return;
  }
  authorization = request.headers.authorization ?? "";
  if (!accepted.includes(authorization)) {
    response.writeHead(401, { "www-authenticate": "Bearer" }).end();
    return;
  }
  const headers = new Headers();
  for (const [name, value] of Object.entries(request.headers)) {
    if (typeof value === "string") headers.set(name, value);
  }
  const { method = "GET" } = request;
  const body = method === "POST" ? { body: Buffer.concat(chunks) } : {};
  const url = `http://${request.headers.host}${request.url}`;
  const answer = await handler.fetch(new Request(url, { method, headers, ...body }));
  response.writeHead(answer.status, Object.fromEntries(answer.headers));
  if (answer.body !== null) for await (const chunk of answer.body) response.write(chunk);
  response.end();
}

createServer((request, response) => {
  serve(request, response).catch(() => response.destroy());
}).listen(8080);
