import { request as httpRequest } from "node:http";
import { afterEach, describe, expect, it } from "@jest/globals";
import { Cleanups } from "../cleanups.ts";
import { type Rig, startUpstream } from "../integration/proxy/rig.ts";
import { call, sessionWithServer } from "../integration/proxy/session-with-server.ts";
import { newMarker } from "./sweeper.ts";

/**
 * T32: headers of the caller that must not reach an MCP server or the model: its session token, cookies,
 * what it says of where it is, another session's MCP session. Precedents: proxies that forward client
 * headers upstream (MCPJungle#252, fastmcp#3262, litellm#33190).
 */
const cleanups = new Cleanups();
afterEach(async () => await cleanups.run());

const marker = newMarker("T32");
const FOREIGN: Record<string, string> = {
  "x-forwarded-for": marker,
  "x-forwarded-host": marker,
  "x-forwarded-proto": marker,
  "x-real-ip": marker,
  "x-original-url": `/${marker}`,
  "x-http-method-override": "DELETE",
  forwarded: `for=${marker}`,
  via: `1.1 ${marker}`,
  referer: `http://${marker}.test/`,
  "user-agent": marker,
  "accept-language": marker,
  traceparent: `00-${marker}`,
  baggage: `a=${marker}`,
  "x-stainless-lang": marker,
  connection: "close, authorization, x-api-key",
  te: "trailers",
  "keep-alive": marker,
  upgrade: marker,
  "anthropic-organization": marker,
  "openai-organization": marker,
};

/** Unlike fetch, node:http sends what it is told. */
async function post(rig: Rig, path: string, headers: Record<string, string>, body: unknown) {
  const authorization = `Bearer ${await rig.token()}`;
  return await new Promise<number | undefined>((resolve, reject) => {
    const outgoing = httpRequest(`${rig.url}${path}`, {
      method: "POST",
      headers: { authorization, "content-type": "application/json", ...headers },
    });
    outgoing.once("response", (response) => {
      response.resume();
      resolve(response.statusCode);
    });
    outgoing.once("error", reject);
    outgoing.end(JSON.stringify(body));
  });
}

describe("headers of the caller", () => {
  it("do not reach an MCP server: it gets the credential and what the proxy itself says", async () => {
    const secret = newMarker("T32");
    const { rig, upstream } = await sessionWithServer(cleanups, secret);
    const cookies = { cookie: `a=${marker}`, "x-api-key": marker, "proxy-authorization": marker };

    expect(await post(rig, "/mcp/docs", { ...FOREIGN, ...cookies }, call("echo"))).toBe(200);

    const [received] = upstream.received;
    expect(received?.headers.authorization).toBe(`Bearer ${secret}`);
    expect(Object.keys(received?.headers ?? {}).toSorted()).toEqual([
      "accept",
      "accept-encoding",
      "authorization",
      "connection",
      "content-length",
      "content-type",
      "host",
    ]);
    expect(JSON.stringify(received)).not.toContain(marker);
    expect(JSON.stringify(received)).not.toContain(await rig.token());
  });

  it("do not reach the model", async () => {
    const key = newMarker("T32");
    const model = await startUpstream(cleanups, (_received, response) => response.end("{}"));
    const { rig } = await sessionWithServer(cleanups, newMarker("T32"), undefined, {
      modelBaseUrl: model.url,
      modelApiKey: key,
    });

    expect(await post(rig, "/model/v1/messages", FOREIGN, {})).toBe(200);

    const [received] = model.received;
    expect(received?.headers["x-api-key"]).toBe(key);
    expect(Object.keys(received?.headers ?? {}).toSorted()).toEqual([
      "accept",
      "accept-encoding",
      "anthropic-version",
      "connection",
      "content-length",
      "content-type",
      "host",
      "x-api-key",
    ]);
    expect(JSON.stringify(received)).not.toContain(marker);
    expect(JSON.stringify(received)).not.toContain(await rig.token());
  });

  it("open no MCP session but their own: the server is not asked", async () => {
    const { rig, upstream } = await sessionWithServer(cleanups, newMarker("T32"));

    for (const header of ["mcp-session-id", "last-event-id"]) {
      const answer = await post(rig, "/mcp/docs", { [header]: marker }, call("echo"));
      expect(answer).toBe(200);
    }

    expect(upstream.received).toEqual([]);
  });

  it("do not say what the credential's header holds, whatever its name", async () => {
    const secret = newMarker("T32");
    const { rig, upstream } = await sessionWithServer(cleanups, secret);
    for (const [id, snapshot] of rig.snapshots) {
      const vaults = snapshot.vaults.map((vault) => ({
        ...vault,
        entries: vault.entries.map((entry) => ({ ...entry, header: "X-Api-Key", scheme: "" })),
      }));
      rig.snapshots.set(id, { ...snapshot, vaults });
    }

    await post(rig, "/mcp/docs", { "x-api-key": marker }, call("echo"));

    expect(upstream.received[0]?.headers["x-api-key"]).toBe(secret);
    expect(upstream.received[0]?.headers).not.toHaveProperty("authorization");
  });
});
