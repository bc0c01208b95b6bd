import { createServer, request } from "node:http";
import type { AddressInfo } from "node:net";
import { setImmediate as nextTurn } from "node:timers/promises";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { afterEach, beforeEach, expect, it } from "@jest/globals";
import { Exchange } from "./exchange.ts";

const MEBI = 1024 * 1024;
const SIZE = 48 * MEBI;

const server = createServer();
beforeEach(async () => {
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
});
afterEach(async () => {
  server.closeAllConnections();
  await new Promise((resolve) => server.close(resolve));
});

/** Bytes of buffers that something still holds, once the collector has had its turns. */
async function heldBytes(): Promise<number> {
  setFlagsFromString("--expose-gc");
  const collect: unknown = runInNewContext("gc");
  for (let turn = 0; turn < 10; turn += 1) {
    await nextTurn();
    if (typeof collect === "function") collect();
  }
  return process.memoryUsage().arrayBuffers;
}

it("what has been taken of a body is not kept while the rest is awaited", async () => {
  const before = await heldBytes();
  const taken = Promise.withResolvers<AsyncGenerator<Buffer>>();
  server.once("request", (incoming, response) => {
    const take = async () => {
      const body = new Exchange(incoming, response).body(Number.POSITIVE_INFINITY);
      let size = 0;
      while (size < SIZE) size += (await body.next()).value?.length ?? 0;
      return body;
    };
    take().then(taken.resolve, taken.reject);
  });
  const { port } = server.address() as AddressInfo;
  const sending = request({ port, host: "127.0.0.1", method: "POST" });
  sending.on("error", () => {});
  const piece = Buffer.alloc(MEBI);
  for (let sent = 0; sent < SIZE; sent += piece.length) {
    await new Promise<void>((resolve) => sending.write(piece, () => resolve()));
  }

  const body = await taken.promise;
  const held = (await heldBytes()) - before;

  expect(held).toBeLessThan(SIZE / 2);
  expect(body).toBeDefined();
});
