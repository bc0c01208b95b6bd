import { readFile, writeFile } from "node:fs/promises";
import type { ServerResponse } from "node:http";
import { afterEach, describe, expect, it } from "@jest/globals";
import { Cleanups } from "../cleanups.ts";
import { eventually } from "../eventually.ts";
import { everythingOf, POD, SESSION, SkippingClock } from "../integration/proxy/rig.ts";
import {
  call,
  secretsWith,
  sendJson,
  sessionWithServer,
  vaultFor,
} from "../integration/proxy/session-with-server.ts";
import { ProxySweep } from "./proxy-sweep.ts";
import { newMarker } from "./sweeper.ts";

/**
 * T02: the tool of an MCP server gives back the credential that it was sent, in every usual form, as a
 * value or a key of JSON, as one answer or as a stream. No form may reach the harness, a log
 * or a metric; what is not found is said in the guide. The forms are computed here, not by the product.
 * It may also be a value that another request was sent with, before this one or since.
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

const inSpecials = (text: string, write: (char: string) => string) =>
  text.replaceAll(/[^A-Za-z0-9]/g, write);
const decimalEntity = (char: string) => `&#${char.charCodeAt(0)};`;
const hexEntity = (char: string) => `&#x${toHex(char)};`;
const namedEntity = (char: string) => {
  const name = { "/": "sol", "+": "plus", "=": "equals", "?": "quest", "&": "amp", '"': "quot" }[
    char
  ];
  return name === undefined ? char : `&${name};`;
};

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
  ["URL-encoded, all of it", percentAll],
  ["URL-encoded but the slash", (secret) => encodeURIComponent(secret).replaceAll("%2F", "/")],
  ["URL-encoded twice", (secret) => encodeURIComponent(encodeURIComponent(secret))],
  ["JSON of an encoder that escapes more", (secret) => `{"a":"${inSpecials(secret, escaped)}"}`],
  ["that JSON in JSON", (secret) => JSON.stringify(inSpecials(secret, escaped))],
  ["HTML with decimal entities", (secret) => inSpecials(secret, decimalEntity)],
  ["HTML with hexadecimal entities", (secret) => inSpecials(secret, hexEntity)],
  ["HTML with named entities", (secret) => inSpecials(secret, namedEntity)],
  ["HTML in HTML", (secret) => inSpecials(secret, hexEntity).replaceAll("&", "&amp;")],
  [
    "short escapes of a program's text",
    (secret) => `\\x${toHex(secret).match(/../g)?.join("\\x")}`,
  ],
  ["quoted-printable", (secret) => inSpecials(secret, (char) => `=${toHex(char).toUpperCase()}`)],
  ["base64 in lines", (secret) => toBase64(`user:${secret}`).replaceAll(/.{20}/g, "$&\n")],
];

/** With characters that the encodings change. */
const withSpecials = (name: string) => `${newMarker(name)}/+=?&"`;

const newDigits = () => String(Math.floor(1e14 + Math.random() * 9e14));

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

  it.each([
    ["a number", (digits: string) => digits],
    ["a number with an exponent", (digits: string) => `${digits[0]}.${digits.slice(1)}e15`],
  ])("made of digits, as %s of JSON, gives back nothing", async (_name, numberOf) => {
    const secret = `7${newDigits()}`;
    const { rig } = await sessionWithServer(cleanups, secret, (_received, response) => {
      response.writeHead(200, { "content-type": "application/json" });
      response.end(`{"jsonrpc":"2.0","id":1,"result":{"content":[],"a":${numberOf(secret)}}}`);
    });

    const answer = await (await rig.post("/mcp/docs", call("echo"))).json();

    expect(answer).toMatchObject({ result: { a: "[redacted:main/docs]" } });
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
    ["encoded in another way", (secret) => Array.from(toHex(secret)).join("-"), /any\s+other way/],
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

/** A server that knows all it was ever sent, and a session whose credential is changed meanwhile. */
async function rotating() {
  const clock = new SkippingClock();
  const values = [newMarker("T02"), newMarker("T02"), newMarker("T02")] as const;
  /** Answers that wait to be given, the oldest first. */
  const waiting: ServerResponse[] = [];
  const session = await sessionWithServer(
    cleanups,
    values[0],
    ({ method }, response) => {
      if (method === "GET") {
        response.writeHead(200, { "content-type": "text/event-stream" }).flushHeaders();
      }
      waiting.push(response);
    },
    { clock },
  );
  const { rig, upstream } = session;
  const echo = () => upstream.received.map(({ headers }) => headers.authorization);
  return {
    ...session,
    values,
    waiting,
    sweep: new ProxySweep(rig, values),
    /** Undefined takes the value away. */
    change: async (value: string | undefined) => {
      const secrets = value === undefined ? {} : secretsWith(value);
      await writeFile(rig.credentialsFile, JSON.stringify(secrets));
      clock.skip(5001);
    },
    /** Starts a request and resolves once the server has it. */
    begin: async (method: "GET" | "POST", sessionToken?: string) => {
      const before = waiting.length;
      const answer = fetch(`${rig.url}/mcp/docs`, {
        method,
        headers: {
          "content-type": "application/json",
          authorization: `Bearer ${sessionToken ?? (await rig.token())}`,
        },
        ...(method === "POST" ? { body: JSON.stringify(call("echo")) } : {}),
      });
      await eventually("the request at the server", () => waiting.length > before);
      // Not the promise itself, which `await` would wait for.
      return { answer };
    },
    /** Gives the oldest request everything back that the server was ever sent. */
    give: (as: "json" | "event" | "notification") => {
      const response = waiting.shift();
      const result = { content: [], structuredContent: { echo: echo() } };
      const notification = { method: "notifications/message", params: { data: echo() } };
      const told = as === "notification" ? notification : { id: 1, result };
      const text = JSON.stringify({ jsonrpc: "2.0", ...told });
      if (as === "json") {
        response?.writeHead(200, { "content-type": "application/json" }).end(text);
        return;
      }
      if (as === "event") response?.writeHead(200, { "content-type": "text/event-stream" });
      response?.end(`data: ${text}\n\n`);
    },
  };
}

describe("a server that gives back what another request was sent with", () => {
  it.each([
    { method: "POST", as: "json" },
    { method: "POST", as: "event" },
    { method: "GET", as: "notification" },
  ] as const)(
    "to a $method, as $as, after the value was rotated, gives back nothing",
    async ({ method, as }) => {
      const { values, upstream, sweep, change, begin, give } = await rotating();
      const slow = await begin(method);
      await change(values[1]);
      const later = await begin("POST");

      give(as);
      const seen = await sweep.answer(await slow.answer);
      give("json");
      await sweep.answer(await later.answer);

      const sent = upstream.received.map(({ headers }) => headers.authorization);
      expect(sent).toEqual([`Bearer ${values[0]}`, `Bearer ${values[1]}`]);
      expect(seen.split("[redacted:main/docs]")).toHaveLength(3);
      expect(await sweep.found()).toEqual([]);
    },
  );

  it("to another session, after the value was rotated, gives back nothing", async () => {
    const { rig, values, sweep, change, begin, give } = await rotating();
    const snapshot = rig.snapshots.get(SESSION);
    if (snapshot === undefined) throw new Error("the rig has a session");
    const other = "sesn_poolab00_11111111111111111111111111";
    rig.snapshots.set(other, { ...snapshot, sessionId: other });
    rig.leases.set(other, { token: "lease-2", epoch: 1, owner: POD, terminated: false });
    const slow = await begin("POST");
    await change(values[1]);
    const later = await begin("POST", await rig.token(other, "lease-2"));

    give("json");
    const seen = await sweep.answer(await slow.answer);
    give("json");
    await sweep.answer(await later.answer);

    expect(seen.split("[redacted:main/docs]")).toHaveLength(3);
    expect(await sweep.found()).toEqual([]);
  });

  it("in a later answer, after two rotations, gives back nothing", async () => {
    const { values, sweep, change, begin, give } = await rotating();
    let last = "";
    for (const value of values) {
      await change(value);
      const { answer } = await begin("POST");
      give("json");
      last = await sweep.answer(await answer);
    }

    expect(last.split("[redacted:main/docs]")).toHaveLength(4);
    expect(await sweep.found()).toEqual([]);
  });

  it("in a later answer, after the value was taken away and another given, gives back nothing", async () => {
    const { rig, values, sweep, change, begin, give } = await rotating();
    const first = await begin("POST");
    give("json");
    await sweep.answer(await first.answer);

    await change(undefined);
    const refused = await everythingOf(await rig.post("/mcp/docs", call("echo")));
    await change(values[1]);
    const later = await begin("POST");
    give("json");
    const seen = await sweep.answer(await later.answer);

    expect(refused).toContain("CREDENTIAL_NOT_FOUND");
    expect(seen.split("[redacted:main/docs]")).toHaveLength(3);
    expect(await sweep.found()).toEqual([]);
  });
});
