import { writeFile } from "node:fs/promises";
import type { ServerResponse } from "node:http";
import { setImmediate as turn } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, it } from "@jest/globals";
import { array, assert, asyncProperty, integer } from "fast-check";
import { Cleanups } from "../cleanups.ts";
import { eventually } from "../eventually.ts";
import { Rig, SkippingClock, startUpstream, type Upstream } from "../integration/proxy/rig.ts";
import { call, sessionWithServer } from "../integration/proxy/session-with-server.ts";
import { ProxySweep } from "./proxy-sweep.ts";
import { newMarker } from "./sweeper.ts";

/**
 * T03: the server writes its echo in two pieces, cut at every byte there is, and in random pieces. No
 * cut may let the credential through, and what comes out is the same text whatever the cut.
 */
const cleanups = new Cleanups();
const secret = newMarker("T03");
const hex = Buffer.from(secret).toString("hex");
const base64 = Buffer.from(`x${secret}y`).toString("base64");
/** Characters of several bytes, so that cuts also fall inside a character. */
const text = `é${secret}é ${hex} ${base64}`;
const event = Buffer.from(
  `data: ${JSON.stringify({ jsonrpc: "2.0", id: 1, result: { content: [{ type: "text", text }] } })}\n\n`,
);
const raw = Buffer.from(`event: x\ndata: {"text":"${text}"}\n\n`);

const unicodeOf = (given: string) =>
  Array.from(given, (char) => `\\u${char.charCodeAt(0).toString(16).padStart(4, "0")}`).join("");

let cuts: number[] = [];
let rig: Rig;
let upstreams: Upstream[];
let sweep: ProxySweep;

/** Each piece in a write of its own, and a turn of the loop between them: packets of their own. */
async function writePieces(response: ServerResponse, bytes: Buffer): Promise<void> {
  response.writeHead(200, { "content-type": "text/event-stream" });
  response.socket?.setNoDelay(true);
  let from = 0;
  for (const cut of [...cuts, bytes.length]) {
    response.write(bytes.subarray(from, cut));
    from = cut;
    await turn();
    await turn();
  }
  response.end();
}

beforeAll(async () => {
  const model = await startUpstream(cleanups, (_received, response) => {
    writePieces(response, raw).catch(() => {});
  });
  const session = await sessionWithServer(
    cleanups,
    secret,
    (_received, response) => {
      writePieces(response, event).catch(() => {});
    },
    { modelBaseUrl: model.url, modelApiKey: secret, requestsPerMinute: 1_000_000 },
  );
  rig = session.rig;
  upstreams = [model, session.upstream];
  sweep = new ProxySweep(rig, [secret]);
});

afterAll(async () => await cleanups.run());

async function ask(path: string, at: readonly number[]): Promise<string> {
  cuts = [...new Set(at)].toSorted((a, b) => a - b);
  const body = path.startsWith("/mcp") ? call("echo") : {};
  return (await sweep.answer(await rig.post(path, body))).split("\n\n").slice(1).join("\n\n");
}

describe.each([
  { path: "/mcp/docs", bytes: event, id: "main/docs" },
  { path: "/model/v1/messages", bytes: raw, id: "model-key" },
])("an echo in a stream of $path", ({ path, bytes, id }) => {
  const marker = `[redacted:${id}]`;

  it("is taken out, cut at any byte", async () => {
    const whole = await ask(path, []);
    expect(whole.split(marker)).toHaveLength(4);
    expect(whole).toContain(`é${marker}é ${marker} `);

    const others: number[] = [];
    for (let cut = 1; cut < bytes.length; cut += 1) {
      if ((await ask(path, [cut])) !== whole) others.push(cut);
    }

    expect(others).toEqual([]);
  });

  it("is taken out, cut into any pieces", async () => {
    const whole = await ask(path, []);
    const pieces = array(integer({ min: 1, max: bytes.length - 1 }), { maxLength: 40 });

    await assert(
      asyncProperty(pieces, async (at) => {
        expect(await ask(path, at)).toBe(whole);
      }),
      { numRuns: 40 },
    );
  });
});

it("a key that was rotated while the stream runs is taken out, cut at every byte", async () => {
  const clock = new SkippingClock();
  const keys = [newMarker("T03"), newMarker("T03")] as const;
  const streams: ServerResponse[] = [];
  const model = await startUpstream(cleanups, (_received, response) => {
    response.writeHead(200, { "content-type": "text/event-stream" });
    // The stream stands still inside the key it was asked with.
    response.write(`data: ${keys[0].slice(0, 9)}`);
    streams.push(response);
  });
  const rotating = await Rig.start(cleanups, {
    modelBaseUrl: model.url,
    modelApiKey: keys[0],
    clock,
  });
  const sweeping = new ProxySweep(rotating, keys);
  const first = await rotating.post("/model/v1/messages", {});
  await writeFile(rotating.modelKeyFile, keys[1]);
  clock.skip(5001);
  const second = await rotating.post("/model/v1/messages", {});
  await eventually("both requests", () => streams.length === 2);

  const [stream] = streams;
  stream?.socket?.setNoDelay(true);
  for (const char of `${keys[0].slice(9)} ${keys[1]} ${keys[0]} end\n\n`) {
    stream?.write(char);
    await turn();
    await turn();
  }
  for (const each of streams) each.end();
  const marker = "[redacted:model-key]";

  expect(await sweeping.answer(first)).toContain(`${marker} ${marker} ${marker} end`);
  await sweeping.answer(second);
  expect(model.received.map(({ headers }) => headers["x-api-key"])).toEqual(keys);
  expect(await sweeping.found()).toEqual([]);
});

it.each([
  ["as it is", (given: string) => given],
  ["as JSON that escapes all", unicodeOf],
])(
  "a key that comes in the deltas of a text is taken out, cut anywhere: %s",
  async (_name, write) => {
    const key = newMarker("T03");
    let cut = 0;
    const model = await startUpstream(cleanups, (_received, response) => {
      const whole = write(key);
      const deltas = [whole.slice(0, cut), whole.slice(cut)].map((piece) => ({
        type: "content_block_delta",
        index: 0,
        delta: { type: "text_delta", text: piece },
      }));
      const events = [
        ...deltas,
        { type: "content_block_stop", index: 0 },
        { type: "message_stop" },
      ];
      response.writeHead(200, { "content-type": "text/event-stream" });
      response.end(events.map((one) => `data: ${JSON.stringify(one)}\n\n`).join(""));
    });
    const streaming = await Rig.start(cleanups, {
      modelBaseUrl: model.url,
      modelApiKey: key,
      requestsPerMinute: 1_000_000,
    });
    const texts = new Set<string>();
    for (cut = 0; cut <= write(key).length; cut += 1) {
      const answer = await (await streaming.post("/model/v1/messages", {})).text();
      const pieces = answer.matchAll(/"text":("[^"]*")/g);
      texts.add(Array.from(pieces, ([, piece]) => JSON.parse(piece ?? "") as string).join(""));
    }

    expect(model.received[0]?.headers["x-api-key"]).toBe(key);
    expect([...texts]).toEqual(["[redacted:model-key]"]);
  },
);

it("nothing was found anywhere, and both servers had the credential", async () => {
  expect(await sweep.found()).toEqual([]);
  const [model, server] = upstreams;
  expect(model?.received[0]?.headers["x-api-key"]).toBe(secret);
  expect(server?.received[0]?.headers.authorization).toBe(`Bearer ${secret}`);
});
