import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { Socket } from "node:net";
import type { Duplex } from "node:stream";
import { AppError, codeOf } from "../runtime/errors.ts";
import { MAX_HEADERS, SIZES, TIMEOUTS } from "./limits.ts";
import type { ProxyMetrics, UNSERVED } from "./metrics.ts";

export interface CallerServerOptions {
  handle: (request: IncomingMessage, response: ServerResponse) => Promise<void>;
  metrics: Pick<ProxyMetrics, "unserved">;
  /** For a whole request; 0 where a role bounds it. */
  requestTimeoutMs: number;
  /** Connections beyond them are closed at once; without it there is no limit. */
  connections?: { max: number; maxOfOneAddress: number };
}

/** What harness or sandbox talks to: strict HTTP, limits on headers, refusals counted. */
export function createCallerServer(options: CallerServerOptions): Server {
  const { handle, metrics } = options;
  const server = createServer(
    {
      requireHostHeader: true,
      insecureHTTPParser: false,
      maxHeaderSize: SIZES.headers,
      requestTimeout: options.requestTimeoutMs,
      headersTimeout: TIMEOUTS.headersMs,
      // Node looks at these limits every 30 s otherwise.
      connectionsCheckingInterval: 1000,
      // Idle connections outlive the client's pool time, so that a reused one is never just closed.
      keepAliveTimeout: 75_000,
    },
    (request, response) => {
      handle(request, response).catch(() => response.destroy());
    },
  );
  server.maxHeadersCount = MAX_HEADERS;
  if (options.connections !== undefined) limitConnections(server, options.connections, metrics);
  server.on("clientError", (error, socket) => {
    const { reason, status } = UNSERVED_BY_CODE[codeOf(error) ?? ""] ?? NOT_HTTP;
    metrics.unserved.inc({ reason });
    if (socket.writable) socket.write(`HTTP/1.1 ${status}\r\nConnection: close\r\n\r\n`);
    destroySoon(socket);
  });
  return server;
}

/** Sends what was written and closes both sides: a half-closed connection would keep its place. */
function destroySoon(socket: Duplex): void {
  if (socket instanceof Socket) socket.destroySoon();
  else socket.destroy();
}

/** Counted before anything is read, so that who only connects cannot take the places of others. */
function limitConnections(
  server: Server,
  { max, maxOfOneAddress }: { max: number; maxOfOneAddress: number },
  metrics: Pick<ProxyMetrics, "unserved">,
): void {
  const open = new Map<string, number>();
  server.maxConnections = max;
  server.on("drop", () => metrics.unserved.inc({ reason: "too_many_connections" }));
  server.prependListener("connection", (socket: Socket) => {
    const address = socket.remoteAddress ?? "";
    const count = (open.get(address) ?? 0) + 1;
    open.set(address, count);
    socket.once("close", () => {
      const left = (open.get(address) ?? 1) - 1;
      if (left === 0) open.delete(address);
      else open.set(address, left);
    });
    if (count <= maxOfOneAddress) return;
    metrics.unserved.inc({ reason: "too_many_connections" });
    socket.destroy();
  });
}

/** Resolves to the port; 0 picks a free one. */
export async function listenAt(
  server: Server,
  { host, port }: { host: string; port: number },
): Promise<number> {
  return await new Promise((resolve, reject) => {
    server.once("error", reject);
    server.listen(port, host, () => {
      server.off("error", reject);
      const address = server.address();
      if (address === null || typeof address === "string") {
        reject(new AppError("INTERNAL", "the proxy's server has no port"));
      } else resolve(address.port);
    });
  });
}

interface Unserved {
  reason: (typeof UNSERVED)[number];
  status: string;
}

const NOT_HTTP: Unserved = { reason: "not_http", status: "400 Bad Request" };
/** By the code of Node's own error. */
const UNSERVED_BY_CODE: Readonly<Record<string, Unserved>> = {
  HPE_HEADER_OVERFLOW: {
    reason: "headers_too_large",
    status: "431 Request Header Fields Too Large",
  },
  ERR_HTTP_REQUEST_TIMEOUT: { reason: "late", status: "408 Request Timeout" },
};
