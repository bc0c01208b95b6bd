import { describe, expect, it } from "@jest/globals";
import { FakeClock } from "../../test/fakes/fake-clock.ts";
import { isGone } from "./errors.ts";
import type { KubeObject } from "./objects.ts";
import { type ByteStream, watchEvents } from "./watch-stream.ts";

const object = (name: string, resourceVersion = "5"): KubeObject => ({
  apiVersion: "v1",
  kind: "Pod",
  metadata: { name, resourceVersion },
});
const line = (type: string, of: object) => `${JSON.stringify({ type, object: of })}\n`;

/** A stream of these pieces that stays open when told to. */
function streamOf(pieces: readonly Uint8Array[], open = false): ByteStream {
  const end = Promise.withResolvers<void>();
  if (!open) end.resolve();
  return {
    destroy: (error) => end.reject(error),
    async *[Symbol.asyncIterator]() {
      yield* pieces;
      await end.promise;
    },
  };
}

async function read(stream: ByteStream, clock = new FakeClock()): Promise<unknown[]> {
  const events: unknown[] = [];
  const options = { what: "watch pods", silenceMs: 1_000 };
  for await (const event of watchEvents(stream, options, clock)) events.push(event);
  return events;
}

describe("watchEvents", () => {
  it("reads events whole, wherever the bytes are cut", async () => {
    const text =
      line("ADDED", object("é")) + line("MODIFIED", object("b")) + line("DELETED", object("c"));
    const bytes = Buffer.from(text);
    const want = [
      { type: "ADDED", object: object("é") },
      { type: "MODIFIED", object: object("b") },
      { type: "DELETED", object: object("c") },
    ];
    for (let size = 1; size < 40; size += 1) {
      const pieces: Uint8Array[] = [];
      for (let at = 0; at < bytes.length; at += size) pieces.push(bytes.subarray(at, at + size));
      expect(await read(streamOf(pieces))).toEqual(want);
    }
  });

  it("a bookmark carries its version; an unknown type and an empty line are passed over", async () => {
    const text = `${line("BOOKMARK", object("", "77"))}\n${line("NEWS", {})}`;

    expect(await read(streamOf([Buffer.from(text)]))).toEqual([
      { type: "BOOKMARK", resourceVersion: "77" },
    ]);
  });

  it("an ERROR event is thrown as the error it says", async () => {
    const status = { kind: "Status", code: 410, reason: "Expired", message: "too old" };
    const error: unknown = await read(streamOf([Buffer.from(line("ERROR", status))])).catch(
      (reason: unknown) => reason,
    );

    expect(isGone(error)).toBe(true);
    expect(error).toMatchObject({ message: "watch pods failed: too old", reason: "Expired" });
  });

  it("a line that is no JSON fails", async () => {
    await expect(read(streamOf([Buffer.from("<html>\n")]))).rejects.toMatchObject({
      name: "SyntaxError",
    });
  });

  it("an event that was cut off is not told", async () => {
    const text = line("ADDED", object("a")) + line("ADDED", object("b")).slice(0, -10);

    expect(await read(streamOf([Buffer.from(text)]))).toHaveLength(1);
  });

  it("silence fails with a time-out, and no timer is left", async () => {
    const clock = new FakeClock();
    const reading = read(streamOf([Buffer.from(line("ADDED", object("a")))], true), clock).catch(
      (reason: unknown) => reason,
    );
    await clock.advance(1_000);

    expect(await reading).toMatchObject({ status: 0, reason: "Timeout" });
    expect(clock.pending).toBe(0);
  });
});
