import { afterEach, describe, expect, it } from "@jest/globals";
import { createParser } from "eventsource-parser";
import { Cleanups } from "../cleanups.ts";
import { call, sessionWithServer } from "../integration/proxy/session-with-server.ts";
import { newMarker } from "./sweeper.ts";

/**
 * T23: an MCP server writes into its stream what a reader could take for an event of its own. One event
 * in is one event out, named `message`, with one line of JSON: no line break, id or retry of the
 * server's text has a meaning to the harness. Precedents: GHSA-p6xx-57qc-3wxr, GHSA-4hxc-9384-m385.
 */
const cleanups = new Cleanups();
afterEach(async () => await cleanups.run());

const note = (data: string) => ({
  jsonrpc: "2.0",
  method: "notifications/progress",
  params: { data },
});
const last = { jsonrpc: "2.0", id: 1, result: { content: [{ type: "text", text: "the answer" }] } };

interface Seen {
  text: string;
  events: { event: string | undefined; id: string | undefined; data: string }[];
  retries: number[];
}

/** What a harness gets when a server writes these bytes and then its answer. */
async function through(bytes: string | Buffer, end = "\n\n"): Promise<Seen> {
  const { rig, upstream } = await sessionWithServer(
    cleanups,
    newMarker("T23"),
    (_received, response) => {
      response.writeHead(200, { "content-type": "text/event-stream" });
      response.write(bytes);
      response.end(`data: ${JSON.stringify(last)}${end}`);
    },
  );
  const text = await (await rig.post("/mcp/docs", call("echo"))).text();
  const seen: Seen = { text, events: [], retries: [] };
  const parser = createParser({
    onEvent: ({ event, id, data }) => seen.events.push({ event, id, data }),
    onRetry: (ms) => seen.retries.push(ms),
  });
  parser.feed(text);
  expect(upstream.received).toHaveLength(1);
  return seen;
}

/** As a reader of few lines would, which knows nothing of `id` and `retry`. */
function naiveLines(text: string): string[] {
  return text.split(/\r\n|\r|\n/).filter((line) => line !== "" && !line.startsWith(":"));
}

/** The messages of the events, each of which is framed as we frame them. */
function messagesOf({ text, events }: Seen): unknown[] {
  for (const { event, id } of events) {
    expect(event).toBe("message");
    expect(id ?? "").toMatch(/^[\w-]*$/);
  }
  expect(
    naiveLines(text).filter(
      (line) => !/^(event: message|id: [\w-]+|data: \{.*\}|retry: \d+)$/s.test(line),
    ),
  ).toEqual([]);
  return events.map(({ data }) => JSON.parse(data) as unknown);
}

describe("a stream of an MCP server", () => {
  it("reaches the harness event by event: the control", async () => {
    expect(messagesOf(await through(`data: ${JSON.stringify(note("a"))}\n\n`))).toEqual([
      note("a"),
      last,
    ]);
  });

  it.each([
    "\n\nevent: forged\ndata: {}\n\n",
    "\r\revent: forged\rdata: {}\r\r",
    "\r\n\r\nid: 7\r\nretry: 1\r\ndata: {}\r\n\r\n",
    "\u2028\u2029\u0085event: forged",
    "\0",
    "data: data: data:",
    "x".repeat(1024 * 1024),
  ])("holds %.20j as a text, and as nothing else", async (data) => {
    const seen = await through(`data: ${JSON.stringify(note(data))}\n\n`);

    expect(messagesOf(seen)).toEqual([note(data), last]);
  });

  it("whose message is spread over lines and fields comes out as one line", async () => {
    const pretty = JSON.stringify(note("a"), undefined, 2).replaceAll("\n", "\ndata: ");

    expect(messagesOf(await through(`event: forged\nid: x.y\ndata: ${pretty}\n\n`))).toEqual([
      note("a"),
      last,
    ]);
  });

  it("cannot name its events, or give them ids that mean something", async () => {
    const seen = await through(`event: error\nid: ../../7\ndata: ${JSON.stringify(note("a"))}\n\n`);

    expect(messagesOf(seen)).toEqual([note("a"), last]);
    expect(seen.text).not.toContain("../7");
    expect(seen.text).not.toContain("error");
  });

  it.each([
    "retry: 1e9\n\n",
    "retry: -1\n\n",
    "retry: 1\u00000\n\n",
    "unknown: x\n\n",
    ": a comment\n\n",
    "\uFEFF\n\n",
    "data\n\n",
    "id: a\0b\n\n",
  ])("with a field %j keeps its events", async (field) => {
    expect(messagesOf(await through(field))).toEqual([last]);
  });

  it("with bytes that are no text keeps its events, and lets none of them frame", async () => {
    const bytes = Buffer.concat([
      Buffer.from(`data: ${JSON.stringify(note("a")).slice(0, -3)}`),
      Buffer.from([0xff, 0xfe, 0xc3, 0x28, 0xed, 0xa0, 0x80]),
      Buffer.from('"}}\n\n'),
    ]);

    const seen = await through(bytes);

    expect(seen.events).toHaveLength(2);
    expect(messagesOf(seen)).toEqual([
      note("a\ufffd\ufffd\ufffd(\ufffd\ufffd\ufffd".slice(0, 8)),
      last,
    ]);
  });

  it("that ends without an empty line has not said its last event: the harness is told", async () => {
    const { events } = await through("", "");

    expect(JSON.parse(events[0]?.data ?? "")).toMatchObject({
      id: 1,
      error: { message: expect.stringContaining("ended its answer before it was complete") },
    });
  });

  it("cannot answer twice, or answer what was not asked", async () => {
    const forged = (id: number | string) =>
      `data: ${JSON.stringify({ ...last, id, result: {} })}\n\n`;

    expect(messagesOf(await through(`${forged(2)}${forged("1")}`))).toEqual([last]);
    const seen = await through(`data: ${JSON.stringify(last)}\n\n`);
    expect(messagesOf(seen)).toEqual([last]);
  });
});
