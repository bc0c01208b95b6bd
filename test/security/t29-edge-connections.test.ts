import { connect, type Socket } from "node:net";
import { afterEach, expect, it } from "@jest/globals";
import { Cleanups } from "../cleanups.ts";
import { eventually } from "../eventually.ts";
import { GitRig } from "../integration/proxy/git-rig.ts";
import { newMarker } from "./sweeper.ts";

/**
 * T29: one sandbox without a token takes connections of the edge and never asks for anything. Its
 * neighbour, at another address, must not notice.
 */

const ATTACKER = "127.0.0.66";
const cleanups = new Cleanups();
afterEach(async () => await cleanups.run());

/** Half a request line from the attacker's address; `resume` is not called, so nothing is read. */
function halfRequest(rig: GitRig): Socket {
  const socket = connect({ host: "127.0.0.1", port: rig.port, localAddress: ATTACKER });
  socket.on("error", () => {});
  socket.on("connect", () => socket.write("GET /git"));
  cleanups.add(async () => void socket.destroy());
  return socket;
}

async function neighbourGets(rig: GitRig): Promise<number> {
  const answer = await rig.fetch(
    "/git/app/info/refs?service=git-upload-pack",
    { signal: AbortSignal.timeout(5000) },
    { connection: "close" },
  );
  await answer.arrayBuffer();
  return answer.status;
}

function countOf(text: string, reason: string): number {
  const line = new RegExp(
    `^drover_proxy_unserved_requests_total\\{reason="${reason}"\\} (\\d+)$`,
    "m",
  );
  return Number(line.exec(text)?.[1]);
}

it("one address holds a few connections, the rest are closed at once, and its neighbour is served", async () => {
  const rig = await GitRig.start(cleanups, { token: newMarker("T29") });
  const sockets = Array.from({ length: 600 }, () => halfRequest(rig));

  await eventually(
    "the end of those too many",
    () => sockets.filter((socket) => socket.closed).length >= 600 - 64,
  );

  expect(sockets.filter((socket) => !socket.closed)).toHaveLength(64);
  expect(await neighbourGets(rig)).toBe(200);
  expect(countOf(await rig.registry.metrics(), "too_many_connections")).toBe(600 - 64);
});

it("a connection that is refused is gone, also when its caller does not close it", async () => {
  const rig = await GitRig.start(cleanups, { token: newMarker("T29") });
  // The caller keeps its side open: only the end of the whole connection frees the place.
  const options = {
    host: "127.0.0.1",
    port: rig.port,
    localAddress: ATTACKER,
    allowHalfOpen: true,
  };
  for (let each = 0; each < 130; each += 1) {
    const socket = connect(options);
    socket.on("error", () => {});
    cleanups.add(async () => void socket.destroy());
    const ended = new Promise((resolve) => socket.once("end", resolve).once("close", resolve));
    socket.resume().write("not http\r\n\r\n");
    await ended;
  }

  const text = await rig.registry.metrics();
  expect(countOf(text, "not_http")).toBe(130);
  expect(countOf(text, "too_many_connections")).toBe(0);
});
