/**
 * The MCP server of the benchmark, a process of its own: raw sockets, so that it costs as little as
 * can be. It takes `POST /json/<n>` and `POST /sse/<n>`, demands a credential, and answers with 1 KB.
 * Prints its port.
 */
import { type AddressInfo, createServer, type Socket } from "node:net";
import { CREDENTIAL_PREFIX, LEAK, TOOL } from "./proxy-protocol.ts";

const RESULT = "A line of a document that somebody has searched for and found. ".repeat(15);
const TOOLS = JSON.stringify({ tools: [{ name: TOOL, inputSchema: { type: "object" } }] });

const server = createServer({ noDelay: true }, (socket) => {
  let text = "";
  socket.on("error", () => {});
  socket.setEncoding("latin1").on("data", (chunk: string) => {
    text += chunk;
    for (;;) {
      const end = text.indexOf("\r\n\r\n");
      if (end < 0) return;
      const head = text.slice(0, end);
      const length = Number(/^content-length: *(\d+)/im.exec(head)?.[1] ?? 0);
      const next = end + 4 + length;
      if (text.length < next) return;
      answer(socket, head, text.slice(end + 4, next));
      text = text.slice(next);
    }
  });
});

function answer(socket: Socket, head: string, body: string): void {
  const credential = /^authorization: Bearer (\S+)/im.exec(head)?.[1] ?? "";
  const id = /"id":(\d+)/.exec(body)?.[1];
  if (!credential.startsWith(CREDENTIAL_PREFIX)) {
    socket.write("HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n");
    return;
  }
  if (id === undefined) {
    socket.write("HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n");
    return;
  }
  const found = body.includes(LEAK) ? `${RESULT} ${credential}` : RESULT;
  const result = body.includes('"tools/list"')
    ? TOOLS
    : JSON.stringify({ content: [{ type: "text", text: found }] });
  const message = `{"jsonrpc":"2.0","id":${id},"result":${result}}`;
  const isStream = head.startsWith("POST /sse/");
  const type = isStream ? "text/event-stream" : "application/json";
  const text = isStream ? `event: message\ndata: ${message}\n\n` : message;
  socket.write(
    `HTTP/1.1 200 OK\r\ncontent-type: ${type}\r\ncontent-length: ${text.length}\r\n\r\n${text}`,
  );
}

server.listen(0, "127.0.0.1", () => {
  const { port } = server.address() as AddressInfo;
  console.log(port);
});
