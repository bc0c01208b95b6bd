import { randomBytes } from "node:crypto";
import { connect, type Socket } from "node:net";
import { afterEach, describe, expect, it } from "@jest/globals";
import { encodePkt, FLUSH } from "../../../src/proxy/roles/git/pkt-line.ts";
import { systemClock } from "../../../src/runtime/clock.ts";
import { Cleanups } from "../../cleanups.ts";
import { eventually } from "../../eventually.ts";
import { GitRig } from "./git-rig.ts";

/** A caller that is slow on purpose: what it asks for ends, so that it holds no place for ever. */

const cleanups = new Cleanups();
afterEach(async () => await cleanups.run());

const ID = "1".repeat(40);
const REFUSED = encodePkt(`${ID} ${"2".repeat(40)} refs/heads/main\0report-status`);

/** For the hour of a transfer stand three seconds, for its shorter limits half a second. */
async function start(): Promise<GitRig> {
  return await GitRig.start(cleanups, {
    timer: (ms, run) => systemClock.timer(ms >= 3_600_000 ? 3000 : ms >= 30_000 ? 500 : ms, run),
  });
}

/** A request as a hostile sandbox writes it; nothing of the answer is read until it is resumed. */
function send(rig: GitRig, service: string, body: Buffer): Socket {
  const socket = connect(rig.port, "127.0.0.1");
  cleanups.add(async () => void socket.destroy());
  socket.on("error", () => {});
  socket.pause();
  socket.write(
    `POST /git/app/${service} HTTP/1.1\r\nHost: edge\r\nAuthorization: Bearer ${rig.token}\r\n` +
      `Content-Type: application/x-${service}-request\r\nContent-Length: 1000000\r\n\r\n`,
  );
  socket.write(body);
  return socket;
}

function dribble(socket: Socket): void {
  const timer = setInterval(() => socket.write("x"), 50);
  cleanups.add(async () => clearInterval(timer));
}

describe("a sandbox that is slow on purpose holds its place for a bounded time", () => {
  it("when a push is refused and its pack never ends", async () => {
    const rig = await start();
    const socket = send(rig, "git-receive-pack", Buffer.concat([REFUSED, FLUSH]));
    let text = "";
    socket.on("data", (chunk) => {
      text += chunk.toString("latin1");
    });
    dribble(socket.resume());

    await eventually("the end of the request", () => rig.uses.length > 0);

    expect(text).toContain("ng refs/heads/main policy: this session may push to agent/** only");
    await eventually("the end of the connection", () => socket.closed);
  });

  it("when the commands of a push never end", async () => {
    const rig = await start();
    const socket = send(rig, "git-receive-pack", REFUSED);
    let text = "";
    socket.on("data", (chunk) => {
      text += chunk.toString("latin1");
    });
    socket.resume();
    const timer = setInterval(() => socket.write(encodePkt(`shallow ${ID}`)), 50);
    cleanups.add(async () => clearInterval(timer));

    await eventually("the end of the request", () => rig.uses.length > 0);

    expect(text).toContain("the commands of the push did not come within a minute");
    expect(rig.uses[0]).toMatchObject({ error: "TIMEOUT" });
    expect(rig.host.received).toEqual([]);
  });

  it("when what is asked for never ends", async () => {
    const rig = await start();
    dribble(send(rig, "git-upload-pack", Buffer.from("0011command=fetch")).resume());

    await eventually("the end of the request", () => rig.uses.length > 0);

    expect(rig.uses[0]?.error).toBeDefined();
  });

  it("when nobody takes the answer", async () => {
    const rig = await start();
    const packet = encodePkt(Buffer.concat([Buffer.of(1), randomBytes(60_000)]));
    rig.host.intercept = (_request, response) => {
      response.writeHead(200, { "content-type": "application/x-git-upload-pack-result" });
      const more = () => {
        while (!response.destroyed && response.write(packet));
      };
      response.on("drain", more);
      more();
      return true;
    };
    const socket = send(rig, "git-upload-pack", Buffer.alloc(1_000_000, "x"));

    await eventually("the end of the request", () => rig.uses.length > 0);

    expect(rig.uses[0]?.bytesOut).toBeGreaterThan(100_000);
    await eventually("the end of the connection", () => socket.resume().closed);
  });
});

it("one tenant cannot take all places of an edge", async () => {
  const rig = await GitRig.start(cleanups, { maxInFlight: 4 });
  for (let each = 0; each < 2; each += 1) send(rig, "git-receive-pack", REFUSED);
  const ask = async () => await rig.fetch("/git/app/info/refs?service=git-upload-pack");
  let answer = await ask();
  for (let tries = 0; answer.status === 200 && tries < 200; tries += 1) answer = await ask();

  expect(await answer.text()).toContain('the sessions of "team-a" have 2 requests in flight');
});
