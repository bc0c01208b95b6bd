import { isIP } from "node:net";
import { Redis, type RedisOptions } from "ioredis";
import { AppError } from "../../runtime/errors.ts";
import type { Secret } from "../../runtime/secret.ts";

/** How to reach Redis. `url` is `redis://host:port[/db]` or `rediss://…` for TLS. */
export interface RedisAddress {
  url: string;
  username?: string | undefined;
  password?: Secret | undefined;
  /** CA certificates in PEM and the server name to check, where the system's defaults do not serve. */
  tls?: { ca?: string; servername?: string } | undefined;
}

/**
 * What a connection is for decides its settings (docs/design/session-log.md#connections): `command`
 * and `commit` fail at once, because the caller sends the *same* step again; `blocking` and
 * `subscriber` wait.
 */
export type ConnectionKind = "command" | "commit" | "blocking" | "subscriber" | "probe";

/** Longest wait for an answer; a connection that is silent for longer is taken for dead. */
const REPLY_TIMEOUT_MS = 2000;
/** A BLPOP answers after this time even when nothing came, so silence longer than that is a dead peer. */
export const BLOCK_SECONDS = 1;

/** `replyMapping` is left out: without it the types of ioredis give replies in the shapes of protocol 2. */
type ConnectionOptions = Omit<RedisOptions, "replyMapping">;

/** Opens nothing yet: call `connect()`. */
export function createConnection(address: RedisAddress, kind: ConnectionKind): Redis {
  const options: ConnectionOptions = {
    ...target(address),
    protocol: 2,
    lazyConnect: true,
    connectTimeout: 5000,
    // Its timer keeps a process alive even when the connection is closed already.
    disconnectTimeout: 200,
    // Cut connections that send no reset (a vanished peer, a dropped NAT entry) are found by silence.
    socketTimeout: kind === "blocking" ? REPLY_TIMEOUT_MS + BLOCK_SECONDS * 1000 : REPLY_TIMEOUT_MS,
    keepAlive: 1000,
    enableOfflineQueue: waits(kind),
    maxRetriesPerRequest: waits(kind) ? null : 0,
    retryStrategy: kind === "probe" ? () => null : retryDelay,
    reconnectOnError: (error) => /^(READONLY|MASTERDOWN|LOADING|CLUSTERDOWN)/.test(error.message),
    connectionName: `drover-${kind}`,
    // Redis 7.0 does not know CLIENT SETINFO, so no user can be granted it there.
    disableClientInfo: true,
  };
  if (!waits(kind)) options.commandTimeout = REPLY_TIMEOUT_MS;
  const connection = new Redis(options);
  // Without a listener ioredis prints to the console; callers see the error where they wait.
  connection.on("error", () => {});
  return connection;
}

/** `host:port`, for messages; never the credentials. */
export function endpointOf(address: RedisAddress): string {
  const url = parseUrl(address.url);
  return `${url.hostname}:${url.port || "6379"}`;
}

function waits(kind: ConnectionKind): boolean {
  return kind === "blocking" || kind === "subscriber";
}

/** Soon at first, then steadily; the uneven end keeps a crowd of clients from coming back together. */
function retryDelay(attempt: number): number {
  return Math.min(20 * attempt, 300) + ((attempt * 37) % 50);
}

function target(address: RedisAddress): ConnectionOptions {
  const url = parseUrl(address.url);
  const username = address.username ?? decodeURIComponent(url.username);
  const password = address.password?.reveal() ?? decodeURIComponent(url.password);
  const host = url.hostname.replace(/^\[(.*)\]$/, "$1");
  const options: ConnectionOptions = {
    host,
    port: Number(url.port || "6379"),
    db: Number(url.pathname.slice(1) || "0"),
  };
  if (username !== "") options.username = username;
  if (password !== "") options.password = password;
  if (url.protocol === "rediss:" || address.tls !== undefined) {
    // An IP address is no server name (RFC 6066 §3); the certificate is checked against it all the same.
    options.tls = { ...(isIP(host) === 0 ? { servername: host } : {}), ...address.tls };
  }
  return options;
}

function parseUrl(text: string): URL {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url === undefined || !/^rediss?:$/.test(url.protocol) || url.hostname === "") {
    throw new AppError(
      "CONFIG_INVALID",
      "the Redis URL is not accepted; it is redis://host:port or rediss://host:port",
    );
  }
  return url;
}
