import { describe, expect, it } from "@jest/globals";
import * as fc from "fast-check";
import { encodeFrame, FrameReader } from "./frames.ts";

const LIMIT = 1000;

describe("a stream of messages", () => {
  it("comes out as it went in, wherever it is cut", () => {
    const messages = fc.array(fc.jsonValue({ maxDepth: 2 }), { maxLength: 5 });
    fc.assert(
      fc.property(messages, fc.integer({ min: 1, max: 40 }), (sent, size) => {
        const bytes = Buffer.concat(sent.map(encodeFrame));
        const reader = new FrameReader(1_000_000);
        const received: unknown[] = [];
        for (let start = 0; start < bytes.length; start += size) {
          received.push(...reader.push(bytes.subarray(start, start + size)));
        }
        expect(received).toEqual(sent.map((value) => JSON.parse(JSON.stringify(value))));
      }),
    );
  });

  it("is refused at a message above the limit before any of it is held", () => {
    const header = Buffer.alloc(4);
    header.writeUInt32BE(LIMIT + 1);

    expect(() => [...new FrameReader(LIMIT).push(header)]).toThrow(
      expect.objectContaining({ code: "INPUT_TOO_LARGE" }),
    );
  });

  it.each([
    ["is not JSON", Buffer.from([0, 0, 0, 1, 0x7b])],
    ["is empty", Buffer.from([0, 0, 0, 0])],
  ])("is refused at a message that %s", (_name, bytes) => {
    expect(() => [...new FrameReader(LIMIT).push(bytes)]).toThrow(
      expect.objectContaining({ code: "INPUT_INVALID" }),
    );
  });
});
