import { once } from "node:events";
import { connect } from "node:net";
import { afterAll, beforeAll, describe, expect, it } from "@jest/globals";
import { array, assert, constantFrom, oneof, property, string, tuple } from "fast-check";
import { matchEntry, parseServerUrl, type ServerUrl } from "../../src/proxy/url-match.ts";
import { Cleanups } from "../cleanups.ts";
import { type Rig, SESSION, startUpstream, type Upstream } from "../integration/proxy/rig.ts";
import { call, sessionWithServer, vaultFor } from "../integration/proxy/session-with-server.ts";
import { ProxySweep } from "./proxy-sweep.ts";
import { newMarker } from "./sweeper.ts";

/**
 * T10: host names that two parsers read differently. An agent's author writes the URL of a server; the
 * vault's entry is for another. Whatever the spelling, the credential goes to the entry's own server or
 * nowhere, and what is dialled is what was matched. Precedent: a NUL that passed a suffix check for
 * half a year.
 */
const cleanups = new Cleanups();
const secret = newMarker("T10");
let rig: Rig;
let allowed: Upstream;
let evil: Upstream;
let sweep: ProxySweep;

beforeAll(async () => {
  evil = await startUpstream(cleanups, (_received, response) => response.end("{}"));
  const session = await sessionWithServer(cleanups, secret, undefined, {
    requestsPerMinute: 1_000_000,
  });
  rig = session.rig;
  allowed = session.upstream;
  sweep = new ProxySweep(rig, [secret]);
});

afterAll(async () => await cleanups.run());

/** Calls a tool of a server at this URL, in a session whose vault is for the allowed server. */
async function callAt(url: string): Promise<string> {
  const snapshot = rig.snapshots.get(SESSION);
  if (snapshot === undefined) throw new Error("the rig has a session");
  const id = `sesn_${rig.snapshots.size}`;
  rig.snapshots.set(id, {
    ...snapshot,
    sessionId: id,
    agent: { ...snapshot.agent, mcpServers: [{ name: "docs", url }] },
    vaults: vaultFor(`${allowed.url}/mcp`),
  });
  rig.leases.set(id, { token: id, epoch: 1, owner: "pod-1", terminated: false });
  const authorization = `Bearer ${await rig.token(id, id)}`;
  return await sweep.answer(await rig.post("/mcp/docs", call("echo"), { authorization }));
}

describe("a URL of an MCP server", () => {
  it("that is the entry's, in whatever writing, is served: the control", async () => {
    const { port } = allowed;
    for (const host of ["127.0.0.1", "2130706433", "0x7f.1", "0177.0.0.1", "127.1", "①②⑦.0.0.1"]) {
      expect(await callAt(`http://${host}:${port}/mcp`)).toContain('"result"');
    }
    expect(new Set(allowed.received.map(({ headers }) => headers.authorization))).toEqual(
      new Set([`Bearer ${secret}`]),
    );
  });

  it.each<[string, (allowed: string, evil: string) => string]>([
    ["another port", (_good, bad) => `http://127.0.0.1:${bad}/mcp`],
    [
      "a user part that looks like the server",
      (good, bad) => `http://127.0.0.1:${good}@127.0.0.1:${bad}/mcp`,
    ],
    [
      "a user part of the right server",
      (good, bad) => `http://127.0.0.1:${bad}@127.0.0.1:${good}/mcp`,
    ],
    [
      "a backslash before the server",
      (good, bad) => `http://127.0.0.1:${bad}\\@127.0.0.1:${good}/mcp`,
    ],
    ["a backslash after it", (good, bad) => `http://127.0.0.1:${good}\\@127.0.0.1:${bad}/mcp`],
    ["a fragment in between", (good, bad) => `http://127.0.0.1:${bad}#@127.0.0.1:${good}/mcp`],
    ["a query in between", (good, bad) => `http://127.0.0.1:${bad}?@127.0.0.1:${good}/mcp`],
    ["a dot at the end of the host", (good) => `http://localhost.:${good}/mcp`],
    ["a null byte", (good, bad) => `http://127.0.0.1:${bad}\0.127.0.0.1:${good}/mcp`],
    ["an encoded null byte", (good) => `http://127.0.0.1%00.evil.test:${good}/mcp`],
    ["an encoded dot", (good) => `http://127%2e0.0.1.evil.test:${good}/mcp`],
    ["a tab in the host", (good, bad) => `http://127.0.0.1:\t${bad}/mcp#${good}`],
    ["a line break in the host", (good, bad) => `http://127.0.0.1:${bad}\n/mcp#${good}`],
    ["IPv4 inside IPv6", (good) => `http://[::ffff:7f00:1]:${good}/mcp`],
    ["another name of the address", (good) => `http://localhost:${good}/mcp`],
    ["another address of the machine", (good) => `http://127.0.0.2:${good}/mcp`],
    ["a letter that only looks right", (good) => `http://lосalhost:${good}/mcp`],
    ["a very long label", (good) => `http://${"a".repeat(300)}.127.0.0.1.test:${good}/mcp`],
    ["the server as a prefix", (good) => `http://127.0.0.1.evil.test:${good}/mcp`],
    ["another scheme", (good) => `https://127.0.0.1:${good}/mcp`],
    ["a scheme that is none", (good) => `ftp://127.0.0.1:${good}/mcp`],
  ])("with %s gets nothing", async (_name, write) => {
    const before = allowed.received.length;

    const seen = await callAt(write(String(allowed.port), String(evil.port)));

    expect(seen).toMatch(/INPUT_INVALID|ADDRESS_REFUSED|UNAVAILABLE|INTERNAL|\b500\b/);
    expect(allowed.received).toHaveLength(before);
    expect(evil.connections).toBe(0);
  });

  it.each<[string, (allowed: string) => string]>([
    ["a path that goes up", (at) => `${at}/mcp/../admin`],
    ["another path", (at) => `${at}/mcp/v2`],
    ["another case of the path", (at) => `${at}/MCP`],
    ["a query", (at) => `${at}/mcp?as=admin`],
  ])("with %s is asked without the credential", async (_name, write) => {
    const before = allowed.received.length;

    expect(await callAt(write(allowed.url))).toContain('"result"');

    const received = allowed.received.slice(before);
    expect(received).toHaveLength(1);
    expect(received[0]?.headers).not.toHaveProperty("authorization");
    expect(JSON.stringify(received)).not.toContain(secret);
  });

  it("is matched as it is dialled, however it is written", () => {
    const entryUrl = "https://docs.example.com/mcp";
    const vaults = [{ name: "v", entries: [{ name: "e", url: entryUrl }] }];
    const piece = oneof(
      constantFrom("docs.example.com", "DOCS.example.com", "evil.test", "docs", ".com", "example"),
      constantFrom(
        "@",
        "\\",
        "/",
        ":",
        "#",
        "?",
        "%00",
        "\0",
        ".",
        "。",
        "%2e",
        "[",
        "]",
        "443",
        "\t",
      ),
      constantFrom("xn--", "ｄ", "\u00ad", "\u200b", "ß", "①", "::ffff:", "0x7f.1", " "),
      string({ maxLength: 3 }),
    );
    const written = tuple(
      constantFrom("https://", "https:", "https:\\\\", "HTTPS://", "http://"),
      array(piece, { minLength: 1, maxLength: 5 }),
      constantFrom("/mcp", "", "/mcp/", "/mcp?x"),
    );
    let matched = 0;

    assert(
      property(written, ([scheme, host, path]) => {
        const url = `${scheme}${host.join("")}${path}`;
        let parsed: ServerUrl;
        try {
          parsed = parseServerUrl(url);
        } catch {
          return;
        }
        const dialled = new URL(url);
        expect(parsed.host).toBe(dialled.hostname);
        expect([dialled.username, dialled.password]).toEqual(["", ""]);
        if (!matchEntry(parsed, vaults, (entry) => entry.url).found) return;
        matched += 1;
        expect(dialled.origin).toBe("https://docs.example.com");
        expect(dialled.pathname).toMatch(/^\/mcp\/?$/);
      }),
      { numRuns: 5000, examples: [[["https://", ["docs.example.com"], "/mcp"]]] },
    );
    expect(matched).toBeGreaterThan(0);
  });

  it.each([
    ["https://user@docs.example.com/mcp", "a user part"],
    ["https://@docs.example.com/mcp", "a user part"],
    ["https:user:pass@docs.example.com/mcp", "a user part"],
    ["https://docs.example.com./mcp", "a dot"],
    ["https://docs.example.com\\@evil.test/mcp", "backslash"],
    ["https://docs.example.com\t/mcp", "control characters"],
    ["https://docs_.example.com/mcp", "an odd host"],
    ["file:///mcp", "not http or https"],
    ["//docs.example.com/mcp", "not a URL"],
  ])("%j is refused before anything is compared", (url, what) => {
    expect(() => parseServerUrl(url)).toThrow(what);
  });
});

describe("the proxy's own host", () => {
  async function raw(target: string, host: string): Promise<string> {
    const authorization = `Authorization: Bearer ${await rig.token()}`;
    const body = JSON.stringify(call("echo"));
    const head = `POST ${target} HTTP/1.1\r\nHost: ${host}\r\n${authorization}\r\nContent-Type: application/json\r\nConnection: close\r\n`;
    const socket = connect(rig.port, "127.0.0.1");
    let text = "";
    socket.on("data", (chunk) => {
      text += chunk.toString();
    });
    socket.write(`${head}Content-Length: ${body.length}\r\n\r\n${body}`);
    await once(socket, "close");
    return text;
  }

  it("is the loopback address and port: the control", async () => {
    expect(await raw("/mcp/docs", `127.0.0.1:${rig.port}`)).toContain("HTTP/1.1 200");
  });

  it.each<[string, (port: number) => [string, string]]>([
    ["a longer name", (port) => ["/mcp/docs", `127.0.0.1:${port}.evil.test`]],
    ["a user part", (port) => ["/mcp/docs", `evil.test@127.0.0.1:${port}`]],
    ["a dot at its end", (port) => ["/mcp/docs", `localhost.:${port}`]],
    ["another way to write it", (port) => ["/mcp/docs", `2130706433:${port}`]],
    ["no port", () => ["/mcp/docs", "127.0.0.1"]],
    ["a whole URL as target", (port) => [`http://127.0.0.1:${port}/mcp/docs`, "evil.test"]],
    ["a whole URL elsewhere", (port) => ["http://evil.test/mcp/docs", `127.0.0.1:${port}`]],
  ])("with %s is refused", async (_name, write) => {
    const before = allowed.received.length;

    expect(await raw(...write(rig.port))).toMatch(/^HTTP\/1\.1 4\d\d /);
    expect(allowed.received).toHaveLength(before);
  });
});

it("the credential was found nowhere but at its own server", async () => {
  sweep.stranger("the other server", evil);
  expect(await sweep.found()).toEqual([]);
  expect(evil.received).toEqual([]);
});
