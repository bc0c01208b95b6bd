import { once } from "node:events";
import { connect } from "node:net";
import { afterEach, describe, expect, it } from "@jest/globals";
import { Cleanups } from "../cleanups.ts";
import type { Received, Rig } from "../integration/proxy/rig.ts";
import {
  call,
  secretsWith,
  sessionWithServer,
  vaultFor,
} from "../integration/proxy/session-with-server.ts";
import { ProxySweep } from "./proxy-sweep.ts";
import { newMarker } from "./sweeper.ts";

/**
 * T22: line breaks and null bytes in what becomes a header of the request to an MCP server: the name of
 * a tool, the parameters that a modern client repeats, the name of the server, a credential, the
 * header's own name. None makes a second header, on either side.
 */
const cleanups = new Cleanups();
afterEach(async () => await cleanups.run());

const MODERN = { "io.modelcontextprotocol/protocolVersion": "2026-07-28" };
const BREAKS = [
  "\r\nX-Admin: 1",
  "\nX-Admin: 1",
  "\rX-Admin: 1",
  "\0X-Admin: 1",
  "\u010d\u010aX-Admin: 1",
  "\u2028X-Admin: 1",
];

function modern(tool: string) {
  const message = call(tool);
  return { ...message, params: { ...message.params, _meta: MODERN } };
}

/** No header that was smuggled in, and none with anything but visible characters. */
function isClean({ headers, rawHeaders }: Received): boolean {
  return (
    headers["x-admin"] === undefined && rawHeaders.every((text) => /^[\x20-\x7e]*$/.test(text))
  );
}

/** What node:http would refuse to send itself. */
async function raw(rig: Rig, lines: string, target = "/mcp/docs"): Promise<string> {
  const body = JSON.stringify(modern("echo"));
  const head = [
    `POST ${target} HTTP/1.1`,
    `Host: 127.0.0.1:${rig.port}`,
    `Authorization: Bearer ${await rig.token()}`,
    "Content-Type: application/json",
    "Connection: close",
    `Content-Length: ${body.length}`,
    lines,
  ].join("\r\n");
  const socket = connect(rig.port, "127.0.0.1");
  let text = "";
  socket.on("data", (chunk) => {
    text += chunk.toString("latin1");
  });
  socket.on("error", () => {});
  socket.write(Buffer.from(`${head}\r\n\r\n${body}`, "latin1"));
  await once(socket, "close");
  return text;
}

describe("a header that the proxy writes", () => {
  it("carries what is harmless: the control", async () => {
    const secret = newMarker("T22");
    const { rig, upstream } = await sessionWithServer(cleanups, secret);

    await raw(rig, "Mcp-Param-Region: eu west");

    expect(upstream.received[0]?.headers).toMatchObject({
      authorization: `Bearer ${secret}`,
      "mcp-name": "echo",
      "mcp-param-region": "eu west",
    });
  });

  it.each(BREAKS)("holds a tool's name with %j in one encoded value", async (text) => {
    const { rig, upstream } = await sessionWithServer(cleanups, newMarker("T22"));
    const name = `echo${text}`;

    await rig.post("/mcp/docs", modern(name));

    const [received] = upstream.received;
    expect(received?.headers["mcp-name"]).toBe(
      `=?base64?${Buffer.from(name).toString("base64")}?=`,
    );
    expect(received && isClean(received)).toBe(true);
  });

  it.each([
    "\r\n X-Admin: 1",
    "a\nX-Admin: 1",
    "a\rX-Admin: 1",
    "a\0b",
    "a\tb",
    "a\u00ffb",
    "a\u0085b",
  ])("holds no parameter with %j", async (value) => {
    const { rig, upstream } = await sessionWithServer(cleanups, newMarker("T22"));

    await raw(rig, `Mcp-Param-Region: ${value}`);

    expect(upstream.received.filter((received) => !isClean(received))).toEqual([]);
    for (const { headers } of upstream.received) {
      expect(headers).not.toHaveProperty("mcp-param-region");
    }
  });

  it.each(["docs%0d%0aX-Admin:%201", "docs%00", "docs%0a", "docs\t", "docs\u00ff"])(
    "is not made for a server named %j",
    async (name) => {
      const { rig, upstream } = await sessionWithServer(cleanups, newMarker("T22"));

      expect(await raw(rig, "X-A: b", `/mcp/${name}`)).toMatch(/^HTTP\/1\.1 40[04] /);
      expect(upstream.received).toEqual([]);
    },
  );

  it.each(["\r\nX-Admin: 1", "\nX-Admin: 1", "\rX-Admin: 1", "\0", "\u00ff", "\t"])(
    "holds no credential with %j, and shows none of it",
    async (text) => {
      const secret = newMarker("T22");
      const { rig, upstream } = await sessionWithServer(cleanups, secret, undefined, {
        secrets: secretsWith(`${secret}${text}x`),
      });
      const sweep = new ProxySweep(rig, [secret]);

      const seen = await sweep.answer(await rig.post("/mcp/docs", call("echo")));

      expect(seen).toContain('"code":"CREDENTIAL_UNAVAILABLE"');
      expect(upstream.received).toEqual([]);
      expect(await sweep.found()).toEqual([]);
    },
  );

  it.each([
    "Host",
    "Transfer-Encoding",
    "Content-Length",
    "Connection",
    "Mcp-Session-Id",
    "Mcp-Name",
  ])("is not %s with a credential as its value", async (header) => {
    const secret = newMarker("T22");
    const { rig, upstream, url } = await sessionWithServer(cleanups, secret);
    for (const [id, snapshot] of rig.snapshots) {
      rig.snapshots.set(id, { ...snapshot, vaults: vaultFor(url, { header }) });
    }
    const sweep = new ProxySweep(rig, [secret]);

    const seen = await sweep.answer(await rig.post("/mcp/docs", call("echo")));

    expect(seen).toContain('"code":"CREDENTIAL_UNAVAILABLE"');
    expect(upstream.received).toEqual([]);
    expect(await sweep.found()).toEqual([]);
  });
});
