import { expect, it } from "@jest/globals";
import { EdgeAddress } from "./edge-address.ts";

it.each([
  {
    url: "http://drover-edge.drover:7080",
    found: "10.96.0.7",
    family: 4,
    want: "http://10.96.0.7:7080",
  },
  {
    url: "http://drover-edge.drover:7080",
    found: "fd00::7",
    family: 6,
    want: "http://[fd00::7]:7080",
  },
  { url: "http://[fd00::7]:7080", found: "fd00::7", family: 6, want: "http://[fd00::7]:7080" },
  { url: "https://edge.example", found: "10.96.0.7", family: 4, want: "https://10.96.0.7" },
])("$url at $found is $want", async ({ url, found, family, want }) => {
  const asked: string[] = [];
  const edge = new EdgeAddress({
    url,
    lookup: async (host) => {
      asked.push(host);
      return { address: found, family };
    },
  });

  expect(await edge.url()).toBe(want);
  expect(asked).toEqual([new URL(url).hostname.replace(/[[\]]/g, "")]);
});

it("a name without an address is said with the reason", async () => {
  const lookup = () => Promise.reject(Object.assign(new Error("no"), { code: "ENOTFOUND" }));
  const edge = new EdgeAddress({ url: "http://drover-edge.drover:7080", lookup });

  await expect(edge.url()).rejects.toMatchObject({
    code: "UNAVAILABLE",
    message: 'the edge "drover-edge.drover" has no address (ENOTFOUND)',
  });
});
