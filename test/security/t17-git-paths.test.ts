import { createHash } from "node:crypto";
import { connect } from "node:net";
import { afterAll, beforeAll, describe, expect, it } from "@jest/globals";
import { encodePkt, FLUSH } from "../../src/proxy/roles/git/pkt-line.ts";
import { Cleanups } from "../cleanups.ts";
import { GitRig } from "../integration/proxy/git-rig.ts";
import { newMarker } from "./sweeper.ts";

/**
 * T17: paths that try to lead a request to another repository, to the git host's other interfaces or
 * past the policy. The host has a second repository that the same token opens: only the edge keeps
 * the session from it. Requests are written byte by byte, because clients tidy paths up.
 */

const marker = newMarker("T17");
const UPLOAD = "service=git-upload-pack";
const cleanups = new Cleanups();
let rig: GitRig;

beforeAll(async () => {
  rig = await GitRig.start(cleanups, { token: marker });
  await rig.host.addRepository("team/other", { token: marker });
});
afterAll(async () => await cleanups.run());

/** Status and text of the answer to exactly this request line. */
async function send(line: string, headers: Record<string, string> = {}): Promise<string> {
  const lines = Object.entries({
    host: "edge",
    authorization: `Bearer ${rig.token}`,
    connection: "close",
    ...headers,
  }).map(([name, value]) => `${name}: ${value}\r\n`);
  return await new Promise((resolve, reject) => {
    let text = "";
    const socket = connect(rig.port, "127.0.0.1", () => {
      socket.write(`${line} HTTP/1.1\r\n${lines.join("")}\r\n`);
    });
    socket.on("data", (chunk) => {
      text += chunk.toString("latin1");
    });
    socket.once("error", reject);
    socket.once("close", () => resolve(text));
  });
}

it("the session's own repository is served, and the host sees the token", async () => {
  const answer = await send(`GET /git/app/info/refs?${UPLOAD}`);

  expect(answer).toMatch(/^HTTP\/1\.1 200 /);
  expect(rig.host.received.at(-1)).toMatchObject({
    url: `/team/app/info/refs?${UPLOAD}`,
    headers: {
      authorization: `Basic ${Buffer.from(`x-access-token:${marker}`).toString("base64")}`,
    },
  });
});

describe("what leads elsewhere", () => {
  it.each([
    ["another repository", `GET /git/other/info/refs?${UPLOAD}`],
    ["an owner and a repository", `GET /git/team/other/info/refs?${UPLOAD}`],
    ["parent folders", `GET /git/app/../other/info/refs?${UPLOAD}`],
    ["parent folders that come back", `GET /git/x/../app/info/refs?${UPLOAD}`],
    ["encoded parent folders", `GET /git/app/%2e%2e/app/info/refs?${UPLOAD}`],
    ["an encoded slash", `GET /git/app%2f..%2fother/info/refs?${UPLOAD}`],
    ["an encoded letter", `GET /git/%61pp/info/refs?${UPLOAD}`],
    ["an empty folder", `GET /git//app/info/refs?${UPLOAD}`],
    ["an empty folder in front", `GET //git/app/info/refs?${UPLOAD}`],
    ["a folder in front", `GET /x/git/app/info/refs?${UPLOAD}`],
    ["a folder behind", `GET /git/app/info/refs/x?${UPLOAD}`],
    ["a dot", `GET /git/./app/info/refs?${UPLOAD}`],
    ["a backslash", `GET /git/app\\..\\other/info/refs?${UPLOAD}`],
    ["a semicolon", `GET /git/app;x/info/refs?${UPLOAD}`],
    ["a semicolon at the end", `GET /git/app/info/refs;x?${UPLOAD}`],
    ["capitals", `GET /git/APP/info/refs?${UPLOAD}`],
    ["a user part", `GET /git/x@app/info/refs?${UPLOAD}`],
    ["the whole URL", `GET http://edge/git/app/info/refs?${UPLOAD}`],
    ["a host of its own", `GET http://127.0.0.1/team/other/info/refs?${UPLOAD}`],
    ["the service twice", `GET /git/app/info/refs?${UPLOAD}&service=git-receive-pack`],
    ["an encoded service", "GET /git/app/info/refs?service=git%2Dupload%2Dpack"],
    ["a parameter beside the service", `GET /git/app/info/refs?${UPLOAD}&x=1`],
    ["no service", "GET /git/app/info/refs"],
    ["an archive", "GET /git/app/info/refs?service=git-upload-archive"],
    ["another method", `PUT /git/app/info/refs?${UPLOAD}`],
    ["a query at an exchange", "POST /git/app/git-upload-pack?x=1"],
    ["HEAD of the dumb protocol", "GET /git/app/HEAD"],
    ["objects of the dumb protocol", "GET /git/app/objects/info/packs"],
    ["the host's large files", "POST /git/app/info/lfs/objects/batch"],
    ["locks of large files", "GET /git/app.git/info/lfs/locks"],
    ["the repository itself", "GET /git/app"],
    ["the host's API", "GET /git/api/v3/user"],
    ["nothing", "GET /"],
  ])("%s is refused, and the host hears nothing", async (_what, line) => {
    const before = rig.host.received.length;

    const answer = await send(line, { "content-length": "0" });

    expect(answer).toMatch(/^HTTP\/1\.1 40[034] /);
    expect(rig.host.received.slice(before)).toEqual([]);
  });

  it.each([
    ["a host", { host: "127.0.0.1" }],
    ["a path to rewrite to", { "x-original-url": "/git/other", "x-rewrite-url": "/git/other" }],
    ["a forwarded host", { "x-forwarded-host": "evil.example", forwarded: "host=evil.example" }],
    ["another method", { "x-http-method-override": "POST" }],
  ])("%s in a header changes nothing", async (_what, headers) => {
    await send(`GET /git/app/info/refs?${UPLOAD}`, headers);

    expect(rig.host.received.at(-1)).toMatchObject({
      method: "GET",
      url: `/team/app/info/refs?${UPLOAD}`,
      headers: { host: rig.host.authority },
    });
  });
});

describe("options of a push, by which a host would act on other branches", () => {
  const option = encodePkt("merge_request.create");

  /** A new branch at the host's own commit, as bytes: git itself would not write them so. */
  async function push(branch: string, capabilities: string, options?: Buffer): Promise<string> {
    const id = await rig.host.read("team/app", "rev-parse", "main");
    const pack = Buffer.from("PACK\0\0\0\u0002\0\0\0\0", "latin1");
    const body = Buffer.concat([
      encodePkt(`${"0".repeat(40)} ${id} refs/heads/agent/${branch}\0${capabilities}`),
      FLUSH,
      ...(options === undefined ? [] : [options, FLUSH]),
      pack,
      createHash("sha1").update(pack).digest(),
    ]);
    const answer = await rig.fetch(
      "/git/app/git-receive-pack",
      { method: "POST", body: new Uint8Array(body) },
      { "content-type": "application/x-git-receive-pack-request" },
    );
    return await answer.text();
  }

  it("a push without them lands: the control", async () => {
    const text = await push("plain", " report-status side-band-64k agent=git/2.39");

    expect(text).toContain("ok refs/heads/agent/plain");
  });

  it.each([
    ["by their name", "report-status push-options"],
    ["with a value", "report-status push-options=1"],
    ["with an empty value", "report-status push-options="],
    ["behind a tab", "report-status side-band-64k\tpush-options"],
    ["behind a line break", "report-status\npush-options"],
    ["behind a form feed", "report-status\fpush-options"],
    ["in the value of another, behind a tab", "report-status agent=git\tpush-options"],
    ["behind two spaces", "report-status  push-options"],
    ["under an unknown word", "report-status push-options-v2"],
  ])("%s do not reach the host", async (what, capabilities) => {
    const before = rig.host.received.length;

    const text = await push(what.replaceAll(" ", "-"), capabilities, option);

    expect(text).toMatch(
      /policy: push options \(-o\) are not passed on|the push cannot be read|which is not passed on/,
    );
    expect(rig.host.received.slice(before)).toEqual([]);
  });
});

it("in the end the host saw the session's repository and no other", () => {
  expect(rig.host.received.length).toBeGreaterThan(4);
  expect(rig.host.received.filter(({ url }) => !url.startsWith("/team/app/"))).toEqual([]);
});
