import { connect, createServer, type Socket } from "node:net";

export interface TcpProxy {
  port: number;
  /** Connections of now fall silent for ever without being closed, as behind a dropped NAT entry; new ones pass. */
  cut(): void;
  /** Also refuses to carry anything for new connections until `heal`. */
  isolate(): void;
  heal(): void;
  close(): Promise<void>;
}

/** Passes bytes on to a port of this machine, until told to lose them. */
export async function startTcpProxy(target: number): Promise<TcpProxy> {
  const lost = new WeakSet<Socket>();
  const open = new Set<Socket>();
  let isolated = false;
  const server = createServer((client) => {
    const upstream = connect(target, "127.0.0.1");
    if (isolated) lost.add(client);
    for (const [from, to] of [
      [client, upstream],
      [upstream, client],
    ] as const) {
      open.add(from);
      from.on("data", (data) => {
        if (!lost.has(client)) to.write(data);
      });
      from.on("error", () => {});
      from.on("close", () => {
        open.delete(from);
        if (!lost.has(client)) to.destroy();
      });
    }
    upstream.once("close", () => lost.add(client));
    clients.add(client);
    client.once("close", () => {
      clients.delete(client);
      upstream.destroy();
    });
  });
  const clients = new Set<Socket>();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  if (address === null || typeof address === "string") throw new Error("no port");
  const cut = () => {
    for (const client of clients) lost.add(client);
  };
  return {
    port: address.port,
    cut,
    isolate() {
      isolated = true;
      cut();
    },
    heal() {
      isolated = false;
    },
    async close() {
      for (const socket of open) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}
