import { once } from "node:events";
import { connect } from "node:net";
import { afterEach, describe, expect, it } from "@jest/globals";
import { Cleanups } from "../cleanups.ts";
import { type Rig, startUpstream, type Upstream } from "../integration/proxy/rig.ts";
import { sessionWithServer } from "../integration/proxy/session-with-server.ts";
import { ProxySweep } from "./proxy-sweep.ts";
import { newMarker } from "./sweeper.ts";

/**
 * T12: a caller brings a key of its own to the model's endpoint, so that what it sends lands in another's
 * account there. Precedent: files carried out through a model API that was allowed, with the attacker's
 * own key. No such request may reach the endpoint.
 */
const cleanups = new Cleanups();
afterEach(async () => await cleanups.run());

const MESSAGES = "/model/v1/messages";
const pools = newMarker("T12");
const attackers = newMarker("T12");

async function start(): Promise<{ rig: Rig; model: Upstream; sweep: ProxySweep }> {
  const model = await startUpstream(cleanups, (_received, response) => response.end("{}"));
  const { rig } = await sessionWithServer(cleanups, newMarker("T12"), undefined, {
    modelBaseUrl: model.url,
    modelApiKey: pools,
  });
  return { rig, model, sweep: new ProxySweep(rig, [pools, attackers]) };
}

describe("a request to the model", () => {
  it("without a key of its own carries the pool's: the control", async () => {
    const { rig, model, sweep } = await start();

    await sweep.answer(await rig.post(`${MESSAGES}?beta=true`, {}));

    expect(model.received[0]?.headers["x-api-key"]).toBe(pools);
    expect(await sweep.found()).toEqual([]);
  });

  it.each([
    ["x-api-key", attackers],
    ["X-API-KEY", attackers],
    ["api-key", attackers],
    ["x-goog-api-key", attackers],
    ["private-token", attackers],
    ["cookie", `session=${attackers}`],
    ["proxy-authorization", `Basic ${attackers}`],
    ["x-api-key", ""],
  ])("with header %s is refused", async (header, value) => {
    const { rig, model, sweep } = await start();

    const answer = await rig.post(MESSAGES, {}, { [header]: value });

    expect(answer.status).toBe(403);
    expect(await sweep.answer(answer)).toContain('"code":"FOREIGN_CREDENTIAL"');
    expect(model.received).toEqual([]);
    expect(await sweep.found()).toEqual([]);
  });

  it.each([
    "key",
    "api_key",
    "api-key",
    "access_token",
    "X-Amz-Signature",
    "a=1&token",
    "password",
  ])("with %s in its query is refused", async (name) => {
    const { rig, model, sweep } = await start();

    const answer = await rig.post(`${MESSAGES}?${name}=${attackers}`, {});

    expect(answer.status).toBe(403);
    expect(await sweep.answer(answer)).toContain('"code":"FOREIGN_CREDENTIAL"');
    expect(model.received).toEqual([]);
    expect(await sweep.found()).toEqual([]);
  });

  it.each([
    ["a key in place of the session token", () => ({ authorization: `Bearer ${attackers}` })],
    ["a Basic pair in its place", () => ({ authorization: `Basic ${btoa(`u:${attackers}`)}` })],
    [
      "a key behind the session token",
      (token: string) => ({ authorization: `Bearer ${token}, Bearer ${attackers}` }),
    ],
  ])("with %s is not let in", async (_name, headers) => {
    const { rig, model, sweep } = await start();

    const answer = await rig.post(MESSAGES, {}, headers(await rig.token()));

    expect(answer.status).toBe(401);
    await sweep.answer(answer);
    expect(model.received).toEqual([]);
    expect(await sweep.found()).toEqual([]);
  });

  it.each([
    [
      "a Basic pair in its URL",
      (port: number) => `http://u:${attackers}@127.0.0.1:${port}${MESSAGES}`,
    ],
    ["a path of the endpoint's administration", () => "/model/v1/organizations/api_keys"],
    ["a path to stored files", () => "/model/v1/files"],
    ["a parameter in its path", () => `${MESSAGES};key=${attackers}`],
  ])("with %s finds no route", async (_name, target) => {
    const { rig, model } = await start();
    const head = `Host: 127.0.0.1:${rig.port}\r\nAuthorization: Bearer ${await rig.token()}\r\n`;
    const socket = connect(rig.port, "127.0.0.1");
    let text = "";
    socket.on("data", (chunk) => {
      text += chunk.toString();
    });
    socket.write(
      `POST ${target(rig.port)} HTTP/1.1\r\n${head}Content-Type: application/json\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}`,
    );
    await once(socket, "close");

    expect(text).toMatch(/^HTTP\/1\.1 404 /);
    expect(text).not.toContain(attackers);
    expect(model.received).toEqual([]);
  });
});
