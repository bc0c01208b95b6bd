import { readFile } from "node:fs/promises";
import { afterEach, describe, expect, it } from "@jest/globals";
import { Cleanups, eventually, SESSION } from "../integration/proxy/rig.ts";
import {
  call,
  sendJson,
  sessionWithServer,
  vaultFor,
} from "../integration/proxy/session-with-server.ts";
import { ProxySweep } from "./proxy-sweep.ts";
import { newMarker } from "./sweeper.ts";

/**
 * T02: the tool of an MCP server gives back the credential that it was sent, in every form of security
 * §12, as a value or a key of JSON, as one answer or as a stream. No form may reach the harness, a log
 * or a metric; what is not found is said in the guide. The forms are computed here, not by the product.
 */
const cleanups = new Cleanups();
afterEach(async () => await cleanups.run());

const toHex = (text: string) => Buffer.from(text).toString("hex");
const toBase64 = (text: string) => Buffer.from(text).toString("base64");
const percentAll = (text: string) => `%${toHex(text).match(/../g)?.join("%")}`;
const escaped = (text: string) =>
  Array.from(text)
    .map((char) => `\\u${char.charCodeAt(0).toString(16).padStart(4, "0")}`)
    .join("");

type Echo = (secret: string) => unknown;

const covered: readonly (readonly [string, Echo])[] = [
  ["a text", (secret) => `authorization: Bearer ${secret}`],
  ["a value deep inside", (secret) => ({ a: [{ b: secret }] })],
  ["a key", (secret) => ({ [`x-${secret}`]: 1 })],
  ["JSON inside a text", (secret) => JSON.stringify({ headers: { a: `q"${secret}/` } })],
  ["base64", (secret) => toBase64(secret)],
  ["base64 after one byte", (secret) => toBase64(`x${secret}y`)],
  ["base64 after two bytes", (secret) => toBase64(`xx${secret}yy`)],
  ["base64url of headers", (secret) => Buffer.from(`{"a":"${secret}"}`).toString("base64url")],
  ["hex", (secret) => toHex(secret)],
  ["hex in capitals", (secret) => toHex(secret).toUpperCase()],
  ["URL-encoded", (secret) => encodeURIComponent(secret)],
  ["URL-encoded in small letters", (secret) => encodeURIComponent(secret).toLowerCase()],
];

/** With characters that the encodings change. */
const withSpecials = (name: string) => `${newMarker(name)}/+=?&"`;

describe("a tool that gives its credential back", () => {
  it.each(
    covered.flatMap(([name, echo]) => [false, true].map((asEvents) => ({ name, echo, asEvents }))),
  )("as $name (as events: $asEvents) gives back nothing", async ({ echo, asEvents, name }) => {
    const secret = name.includes("small letters")
      ? `${newMarker("t02").toLowerCase()}/+=`
      : withSpecials("T02");
    const { rig, upstream } = await sessionWithServer(cleanups, secret, (_received, response) => {
      const structuredContent = { echo: echo(secret) };
      const answer = { jsonrpc: "2.0", id: 1, result: { content: [], structuredContent } };
      if (!asEvents) {
        sendJson(response, answer);
        return;
      }
      response.writeHead(200, { "content-type": "text/event-stream" });
      response.end(`data: ${JSON.stringify(answer)}\n\n`);
    });
    const sweep = new ProxySweep(rig, [secret]);

    const seen = await sweep.answer(await rig.post("/mcp/docs", call("echo")));
    await eventually("the audit record", () => rig.auditLines.length === 1);

    expect(upstream.received[0]?.headers.authorization).toBe(`Bearer ${secret}`);
    expect(seen).toContain("[redacted:main/docs]");
    expect(await sweep.found()).toEqual([]);
    const record = JSON.parse(rig.auditLines[0] ?? "") as { redactions: number };
    expect(record.redactions).toBeGreaterThan(0);
  });

  it("written with \\u escapes gives back nothing", async () => {
    const secret = newMarker("T02");
    const { rig, upstream } = await sessionWithServer(cleanups, secret, (_received, response) => {
      response.writeHead(200, { "content-type": "application/json" });
      response.end(`{"jsonrpc":"2.0","id":1,"result":{"content":[],"a":"${escaped(secret)}"}}`);
    });
    const sweep = new ProxySweep(rig, [secret]);

    await sweep.answer(await rig.post("/mcp/docs", call("echo")));

    expect(upstream.received[0]?.headers.authorization).toBe(`Bearer ${secret}`);
    expect(await sweep.found()).toEqual([]);
  });

  it("decoded from a Basic pair gives back neither pair nor password", async () => {
    const password = newMarker("T02");
    const pair = toBase64(`robot:${password}`);
    const { rig, upstream, url } = await sessionWithServer(
      cleanups,
      pair,
      ({ headers }, response) => {
        const sent = Buffer.from(headers.authorization?.slice(6) ?? "", "base64").toString();
        const parts = [sent, sent.split(":")[1], toHex(sent), toBase64(sent.slice(6))];
        sendJson(response, { jsonrpc: "2.0", id: 1, result: { content: [], parts } });
      },
    );
    const snapshot = rig.snapshots.get(SESSION);
    if (snapshot === undefined) throw new Error("the rig has a session");
    rig.snapshots.set(SESSION, { ...snapshot, vaults: vaultFor(url, { scheme: "Basic" }) });
    const sweep = new ProxySweep(rig, [password, pair]);

    await sweep.answer(await rig.post("/mcp/docs", call("echo")));

    expect(upstream.received[0]?.headers.authorization).toBe(`Basic ${pair}`);
    expect(await sweep.found()).toEqual([]);
  });

  it.each<[string, Echo, RegExp]>([
    ["reversed", (secret) => Array.from(secret).toReversed().join(""), /reversed/],
    ["split", (secret) => [secret.slice(0, 10), secret.slice(10)], /split/],
    ["encoded in another way", (secret) => percentAll(secret), /any\s+other way/],
  ])("%s is not covered, and the guide says so", async (_name, echo, word) => {
    const secret = newMarker("T02");
    const { rig } = await sessionWithServer(cleanups, secret, (_received, response) => {
      sendJson(response, { jsonrpc: "2.0", id: 1, result: { content: [], echo: echo(secret) } });
    });

    const text = await (await rig.post("/mcp/docs", call("echo"))).text();

    expect(text).toContain(JSON.stringify(echo(secret)));
    expect(await readFile("docs/guides/mcp-credentials.md", "utf8")).toMatch(word);
  });
});
