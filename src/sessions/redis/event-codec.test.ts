import { expect, it } from "@jest/globals";
import type { NewEvent } from "../session-log.ts";
import { decodeEntries, encodeEvents } from "./event-codec.ts";

/** What the scripts make of ARGV. */
function stored(args: string[]) {
  const payloads = new Map<string, string>();
  const count = Number(args[0]);
  for (let i = 0; i < count; i += 1) payloads.set(args[1 + 2 * i] ?? "", args[2 + 2 * i] ?? "");
  const entries: [string, string[]][] = [];
  for (let i = 1 + 2 * count; i < args.length; i += 3) {
    const [id = "", type = "", json = ""] = args.slice(i, i + 3);
    entries.push([
      `${entries.length + 1}-0`,
      ["i", id, "t", type, "e", "2", "ts", "5", "d", json, "c", "c0"],
    ]);
  }
  return { payloads, entries };
}

const events: NewEvent[] = [
  { id: "a", type: "user.message", data: { text: "short" } },
  { id: "b", type: "tool.result", data: { content: "ä".repeat(40_000) } },
  // Looks like a reference, so it is kept aside whatever its size.
  { id: "c", type: "tool.result", data: { blob: { sha256: "0".repeat(32) } } },
  { id: "d", type: "tool.result", data: { content: "ä".repeat(40_000) } },
];

it("events over 64 KiB, counted in bytes, are kept aside once and come back whole", async () => {
  const { payloads, entries } = stored(encodeEvents(events));

  const decoded = await decodeEntries(entries, (hashes) =>
    Promise.resolve(hashes.map((hash) => payloads.get(hash) ?? null)),
  );

  expect(payloads.size).toBe(2);
  expect(entries.every(([, fields]) => (fields[9] ?? "").length < 10_000)).toBe(true);
  expect(decoded).toEqual(
    events.map((each, i) => ({ ...each, seq: i + 1, epoch: 2, ts: 5, chain: "c0" })),
  );
});

it("a payload that is gone is an error, not an empty event", async () => {
  const { entries } = stored(encodeEvents(events));

  const reading = decodeEntries(entries, (hashes) => Promise.resolve(hashes.map(() => null)));

  await expect(reading).rejects.toMatchObject({ code: "INTERNAL" });
});

it("an entry of a version that knew no chain values has none", async () => {
  const old: [string, string[]] = ["1-0", ["i", "a", "t", "x", "e", "0", "ts", "1", "d", "{}"]];

  expect(await decodeEntries([old], () => Promise.resolve([]))).toMatchObject([{ chain: "" }]);
});
