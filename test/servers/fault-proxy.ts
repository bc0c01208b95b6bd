/**
 * Stands between a client and a real server (the API server, a vault) and does what networks and busy servers do: cuts
 * connections, swallows traffic, refuses with a status, loses the answer of a call that went
 * through, delays watches. Plain HTTP in front unless a certificate is given; the admin's certificate
 * is used behind.
 */
import {
  createServer,
  type IncomingMessage,
  type RequestListener,
  type Server,
  type ServerResponse,
} from "node:http";
import { Agent, createServer as createTlsServer, request } from "node:https";
import type { AddressInfo, Socket } from "node:net";
import { PassThrough } from "node:stream";

export interface FaultProxyTarget {
  url: string;
  ca: Buffer;
  /** Of the client, where the server asks for one. */
  cert?: Buffer;
  key?: Buffer;
  /** For TLS in front, as a server of name `localhost`. */
  front?: { cert: string; key: string };
}

export interface ProxiedRequest {
  method: string;
  /** With its query. */
  path: string;
  atMs: number;
}

export interface Fault {
  matches: (request: ProxiedRequest) => boolean;
  times: number;
  /** Let the server do it first, and only then spoil the answer. */
  forward?: boolean;
  /** What the client gets: an answer of its own, or a broken connection. */
  reply: { status: number; headers?: Record<string, string>; body?: object } | "cut";
}

export class FaultProxy {
  /** Every request that reached the proxy, also those that a fault answered. */
  readonly requests: ProxiedRequest[] = [];
  /** Connections opened by the client, also those that were cut at once. */
  connections = 0;
  /** Delay of each piece of a watch's answer, in ms. */
  watchDelayMs = 0;
  readonly #target: FaultProxyTarget;
  readonly #agent: Agent;
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  readonly #faults: Fault[] = [];
  #mode: "open" | "refuse" | "silent" = "open";

  static async start(target: FaultProxyTarget): Promise<FaultProxy> {
    const proxy = new FaultProxy(target);
    await new Promise<void>((resolve) => proxy.#server.listen(0, "127.0.0.1", resolve));
    return proxy;
  }

  /** Use `start`. */
  constructor(target: FaultProxyTarget) {
    this.#target = target;
    const { url: _url, front, ...tls } = target;
    this.#agent = new Agent({ ...tls, keepAlive: true });
    const handle: RequestListener = (incoming, outgoing) => this.#handle(incoming, outgoing);
    this.#server = front === undefined ? createServer(handle) : createTlsServer(front, handle);
    this.#server.on("connection", (socket: Socket) => {
      this.connections += 1;
      this.#sockets.add(socket);
      socket.on("close", () => this.#sockets.delete(socket));
      socket.on("error", () => {});
      if (this.#mode === "refuse") socket.destroy();
    });
  }

  get url(): string {
    const { port } = this.#server.address() as AddressInfo;
    return this.#target.front === undefined
      ? `http://127.0.0.1:${port}`
      : `https://localhost:${port}`;
  }

  /** A kubeconfig, as text, whose server is this proxy. */
  get kubeconfig(): string {
    const cluster = { server: this.url, "insecure-skip-tls-verify": true };
    return JSON.stringify({
      apiVersion: "v1",
      kind: "Config",
      clusters: [{ name: "proxy", cluster }],
      users: [{ name: "proxy", user: {} }],
      contexts: [{ name: "proxy", context: { cluster: "proxy", user: "proxy" } }],
      "current-context": "proxy",
    });
  }

  /** Breaks all connections and refuses new ones; or, silently, lets nothing through any more. */
  cut(mode: "refuse" | "silent" = "refuse"): void {
    this.#mode = mode;
    if (mode === "refuse") for (const socket of this.#sockets) socket.destroy();
  }

  restore(): void {
    this.#mode = "open";
  }

  /** Spoils the next `times` requests that match. */
  fault(fault: Fault): void {
    this.#faults.push({ ...fault });
  }

  /** Requests since a time (`Date.now()`) that match. */
  since(atMs: number, matches: (request: ProxiedRequest) => boolean = () => true) {
    return this.requests.filter((one) => one.atMs >= atMs && matches(one));
  }

  async close(): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    this.#agent.destroy();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  #handle(incoming: IncomingMessage, outgoing: ServerResponse): void {
    const { method = "", url: path = "" } = incoming;
    const seen = { method, path, atMs: Date.now() };
    this.requests.push(seen);
    if (this.#mode !== "open") return;
    const fault = this.#faults.find((one) => one.times > 0 && one.matches(seen));
    if (fault === undefined) {
      this.#forward(incoming, outgoing);
      return;
    }
    fault.times -= 1;
    const spoil = () => answer(fault.reply, incoming, outgoing);
    if (fault.forward !== true) {
      incoming.resume();
      incoming.on("end", spoil);
      return;
    }
    this.#ask(incoming, (response) => {
      response.resume();
      response.on("end", spoil);
    });
  }

  #forward(incoming: IncomingMessage, outgoing: ServerResponse): void {
    const delayMs = isWatch({ path: incoming.url ?? "" }) ? this.watchDelayMs : 0;
    this.#ask(
      incoming,
      (response) => {
        outgoing.writeHead(response.statusCode ?? 502, response.headers);
        outgoing.flushHeaders();
        const gate = new PassThrough();
        response.on("data", (chunk: Buffer) => {
          const pass = () => {
            if (this.#mode !== "silent") gate.write(chunk);
          };
          if (delayMs > 0) setTimeout(pass, delayMs);
          else pass();
        });
        response.on("end", () => {
          if (this.#mode !== "silent") setTimeout(() => gate.end(), delayMs);
        });
        response.on("error", () => outgoing.destroy());
        response.on("close", () => {
          if (!response.complete && this.#mode !== "silent") outgoing.destroy();
        });
        outgoing.on("close", () => response.destroy());
        gate.pipe(outgoing);
      },
      () => outgoing.destroy(),
    );
  }

  #ask(
    incoming: IncomingMessage,
    onAnswer: (response: IncomingMessage) => void,
    onError: () => void = () => {},
  ): void {
    const url = new URL(this.#target.url);
    const { host: _host, connection: _connection, ...headers } = incoming.headers;
    const upstream = request({
      agent: this.#agent,
      host: url.hostname,
      port: url.port,
      method: incoming.method,
      path: incoming.url,
      headers,
    });
    upstream.on("response", onAnswer);
    upstream.on("error", onError);
    incoming.on("error", () => upstream.destroy());
    incoming.socket.on("close", () => {
      if (!upstream.writableEnded) upstream.destroy();
    });
    incoming.pipe(upstream);
  }
}

function isWatch({ path }: { path: string }): boolean {
  return new URLSearchParams(path.split("?")[1]).has("watch");
}

export function isListOf(plural: string): (request: ProxiedRequest) => boolean {
  return (one) => one.method === "GET" && namesCollection(one.path, plural) && !isWatch(one);
}

export function isWatchOf(plural: string): (request: ProxiedRequest) => boolean {
  return (one) => one.method === "GET" && namesCollection(one.path, plural) && isWatch(one);
}

function namesCollection(path: string, plural: string): boolean {
  return (path.split("?")[0] ?? "").endsWith(`/${plural}`);
}

function answer(reply: Fault["reply"], incoming: IncomingMessage, outgoing: ServerResponse): void {
  if (reply === "cut") {
    incoming.socket.destroy();
    return;
  }
  outgoing.writeHead(reply.status, { "content-type": "application/json", ...reply.headers });
  // The newline ends the line of a watch event.
  outgoing.end(`${JSON.stringify(reply.body ?? { kind: "Status", code: reply.status })}\n`);
}
