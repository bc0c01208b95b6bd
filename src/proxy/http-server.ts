import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { AppError, codeOf } from "../runtime/errors.ts";
import { MAX_HEADERS, SIZES, TIMEOUTS } from "./limits.ts";
import type { ProxyMetrics, UNSERVED } from "./metrics.ts";

export interface CallerServerOptions {
  handle: (request: IncomingMessage, response: ServerResponse) => Promise<void>;
  metrics: Pick<ProxyMetrics, "unserved">;
  /** For a whole request; 0 where a role bounds it. */
  requestTimeoutMs: number;
  /** Connections beyond them are closed at once. */
  maxConnections?: number;
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
  if (options.maxConnections !== undefined) server.maxConnections = options.maxConnections;
  server.on("clientError", (error, socket) => {
    const { reason, status } = UNSERVED_BY_CODE[codeOf(error) ?? ""] ?? NOT_HTTP;
    metrics.unserved.inc({ reason });
    if (socket.writable) socket.end(`HTTP/1.1 ${status}\r\nConnection: close\r\n\r\n`);
    else socket.destroy();
  });
  return server;
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
