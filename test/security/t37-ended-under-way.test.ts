import { createHash } from "node:crypto";
import { request } from "node:http";
import { afterEach, describe, expect, it } from "@jest/globals";
import { encodePkt, FLUSH } from "../../src/proxy/roles/git/pkt-line.ts";
import { Cleanups } from "../cleanups.ts";
import { eventually } from "../eventually.ts";
import { GitRig } from "../integration/proxy/git-rig.ts";
import { Rig, SESSION, startUpstream } from "../integration/proxy/rig.ts";
import { newMarker } from "./sweeper.ts";

/**
 * T37: what was begun under a session, a binding or a credential that is then taken away does not go
 * on: a push does not land, however late its last byte comes, and a fetch ends.
 */

const cleanups = new Cleanups();
afterEach(async () => await cleanups.run());

const header = Buffer.from("5041434b0000000200000000", "hex");
const PACK = Buffer.concat([header, createHash("sha1").update(header).digest()]);

async function start(): Promise<GitRig> {
  return await GitRig.start(cleanups, { token: newMarker("T37") });
}

/** A push of a branch whose pack stops half-way; `finish` sends the rest. */
async function halfPush(rig: GitRig) {
  const main = (await rig.host.read("team/app", "rev-parse", "main")).trim();
  const command = `${"0".repeat(40)} ${main} refs/heads/agent/late\0report-status\n`;
  const asked = request({
    host: "127.0.0.1",
    port: rig.port,
    method: "POST",
    path: "/git/app/git-receive-pack",
    headers: {
      authorization: `Bearer ${rig.token}`,
      "content-type": "application/x-git-receive-pack-request",
    },
  });
  let told = "";
  const answer = new Promise<string>((resolve) => {
    asked.on("error", (error) => resolve(error.message));
    asked.on("response", (response) => {
      response.on("data", (chunk: Buffer) => {
        told += chunk.toString("latin1");
      });
      response.on("close", () => resolve(told));
    });
  });
  asked.write(Buffer.concat([encodePkt(command), FLUSH, PACK.subarray(0, 6)]));
  await eventually("the request at the host", () =>
    rig.host.received.some(({ method }) => method === "POST"),
  );
  return { finish: () => asked.end(PACK.subarray(6)), told: () => told, answer };
}

async function branchesOf(rig: GitRig): Promise<string> {
  return await rig.host.read("team/app", "for-each-ref", "--format=%(refname)", "refs/heads/agent");
}

const ENDINGS: readonly [string, (rig: GitRig) => void, string][] = [
  ["the session was terminated", (rig) => (rig.terminated = true), "is terminated"],
  ["the binding was removed", (rig) => rig.bindings.clear(), "is not bound"],
  [
    "the credential was taken away",
    (rig) => {
      rig.secrets.clear();
      rig.ahead += 60_000;
    },
    "no such secret",
  ],
];

describe("a push that began before", () => {
  it("lands when nothing is taken away", async () => {
    const rig = await start();
    const push = await halfPush(rig);

    push.finish();

    expect(await push.answer).toContain("ok refs/heads/agent/late");
    expect(await branchesOf(rig)).toContain("refs/heads/agent/late");
  });

  it.each(ENDINGS)("%s does not land", async (_what, takeAway, reason) => {
    const rig = await start();
    const push = await halfPush(rig);
    takeAway(rig);
    await eventually("the end of the push", () => push.told().includes("broken off"));

    push.finish();

    expect(await push.answer).toContain(reason);
    expect(await branchesOf(rig)).toBe("");
  });
});

it("a fetch that runs ends with its session", async () => {
  const rig = await start();
  const packet = encodePkt(Buffer.concat([Buffer.of(1), Buffer.alloc(1000, "x")]));
  rig.host.intercept = (_request, response) => {
    response.writeHead(200, { "content-type": "application/x-git-upload-pack-result" });
    const timer = setInterval(() => response.write(packet), 20);
    response.on("close", () => clearInterval(timer));
    return true;
  };
  const answer = await rig.fetch(
    "/git/app/git-upload-pack",
    { method: "POST", body: "0011command=fetch0000" },
    { "content-type": "application/x-git-upload-pack-request" },
  );
  expect(answer.status).toBe(200);

  rig.terminated = true;

  await expect(answer.arrayBuffer()).rejects.toThrow("terminated");
  await eventually("the record of it", () => rig.uses.length > 0);
  expect(rig.uses.at(-1)).toMatchObject({ error: "SESSION_CLOSED" });
});

describe("a model's answer that streams", () => {
  it.each([
    ["its session was terminated", { terminated: true }],
    ["another worker took its session over", { token: "lease-2", epoch: 2 }],
  ])("ends on both sides once %s", async (_what, change) => {
    const upstream = await startUpstream(cleanups, (_received, response) => {
      response.writeHead(200, { "content-type": "text/event-stream" });
      const timer = setInterval(() => response.write("event: ping\ndata: {}\n\n"), 20);
      response.on("close", () => clearInterval(timer));
    });
    const modelApiKey = newMarker("T37");
    const rig = await Rig.start(cleanups, { modelBaseUrl: upstream.url, modelApiKey });
    const answer = await rig.post("/model/v1/messages", { model: "m", stream: true });
    expect(answer.status).toBe(200);

    const lease = rig.leases.get(SESSION);
    if (lease !== undefined) rig.leases.set(SESSION, { ...lease, ...change });

    await expect(answer.text()).rejects.toThrow("terminated");
    await eventually("the end at the endpoint", () => upstream.aborted === 1);
  });
});
