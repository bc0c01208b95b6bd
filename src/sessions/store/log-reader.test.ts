import { expect, it } from "@jest/globals";
import { nextPageSize, readEvents } from "./log-reader.ts";

it.each([
  { name: "small events: pages grow", count: 8, bytes: 8_000, want: 32 },
  { name: "small events: pages have an end", count: 400, bytes: 40_000, want: 500 },
  { name: "events of 20 KB: half a megabyte", count: 8, bytes: 160_000, want: 26 },
  { name: "the largest events: two at a time", count: 8, bytes: 8 * 256 * 1024, want: 2 },
  { name: "larger still: one", count: 1, bytes: 4 * 1024 * 1024, want: 1 },
])("$name", ({ count, bytes, want }) => {
  expect(nextPageSize(count, bytes)).toBe(want);
});

it("a log of large events is never read in large pages", async () => {
  const pages: number[] = [];
  const text = "x".repeat(190_000);
  const backend = {
    read: (_ref: unknown, { after = 0, limit }: { after?: number; limit: number }) => {
      pages.push(limit);
      const count = Math.min(limit, 100 - after);
      return Promise.resolve(
        Array.from({ length: count }, (_, i) => ({
          id: `e${after + i + 1}`,
          type: "tool.result",
          data: { text },
          seq: after + i + 1,
          epoch: 1,
          ts: 1,
          chain: "",
        })),
      );
    },
  };

  const seqs: number[] = [];
  for await (const event of readEvents(backend, { tenant: "t", id: "s" })) seqs.push(event.seq);

  expect(seqs).toEqual(Array.from({ length: 100 }, (_, i) => i + 1));
  expect(Math.max(...pages)).toBe(8);
});
