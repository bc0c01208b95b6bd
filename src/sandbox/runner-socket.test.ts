import { once } from "node:events";
import { mkdtempSync, rmSync, statSync } from "node:fs";
import { connect, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, it } from "@jest/globals";
import { FakeClock } from "../../test/fakes/fake-clock.ts";
import { silentLogger } from "../runtime/logger.ts";
import { encodeFrame } from "./frames.ts";
import { RunnerLink } from "./runner-link.ts";
import { listenForRunner, PAUSE_MS, type RunnerSource } from "./runner-socket.ts";

let folder: string;
let path: string;
let clock: FakeClock;
let link: RunnerLink;
let source: RunnerSource;
const sockets: Socket[] = [];

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "drover-socket-"));
  path = join(folder, "runner.sock");
  clock = new FakeClock();
  link = new RunnerLink({ clock, logger: silentLogger });
});

afterEach(async () => {
  for (const socket of sockets.splice(0)) socket.destroy();
  await source.close();
  rmSync(folder, { recursive: true, force: true });
});

const listen = async (usedBefore = false) => {
  source = await listenForRunner({ path, link, clock, usedBefore });
};

/** Connects and says hello, as a runner does. */
async function runner(): Promise<Socket> {
  const socket = connect(path);
  sockets.push(socket);
  socket.on("error", () => {});
  await once(socket, "connect");
  socket.write(encodeFrame({ t: "hello" }));
  socket.resume();
  return socket;
}

const isRefused = async (socket: Socket) => {
  if (!socket.closed) await new Promise((resolve) => socket.once("close", resolve));
  return true;
};

async function served(): Promise<void> {
  while (link.problem !== undefined) await new Promise((resolve) => setTimeout(resolve, 5));
}

async function gone(): Promise<void> {
  while (link.problem === undefined) await new Promise((resolve) => setTimeout(resolve, 5));
}

it("another user may connect, and only the first is let in", async () => {
  await listen();
  await runner();
  await served();

  expect(statSync(path).mode & 0o777).toBe(0o666);
  expect(await isRefused(await runner())).toBe(true);
  expect(link.problem).toBeUndefined();
});

it("after a runner is gone nobody is let in for a while, also not who came before", async () => {
  await listen();
  const first = await runner();
  await served();
  const early = await runner();
  first.destroy();
  await gone();
  const meanwhile = await runner();

  expect(await isRefused(early)).toBe(true);
  expect(await isRefused(meanwhile)).toBe(true);
  await clock.advance(PAUSE_MS - 1);
  expect(await isRefused(await runner())).toBe(true);
  await clock.advance(1);
  await runner();
  await served();
});

it("a daemon that starts again in a used sandbox waits as well", async () => {
  await listen(true);

  expect(await isRefused(await runner())).toBe(true);
  await clock.advance(PAUSE_MS);
  await runner();
  await served();
});

it("takes the place of the socket that an earlier daemon left", async () => {
  await listen();
  await source.close();
  await listen();

  await runner();
  await expect(served()).resolves.toBeUndefined();
});

it("a path that cannot be used is told", async () => {
  await listen();
  const nowhere = { path: join(folder, "none", "runner.sock"), link, clock, usedBefore: false };

  await expect(listenForRunner(nowhere)).rejects.toMatchObject({ code: "CONFIG_INVALID" });
});
