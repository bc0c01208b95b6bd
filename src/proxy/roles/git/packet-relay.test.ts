import { describe, expect, it } from "@jest/globals";
import { Redactor } from "../../redaction.ts";
import { type AnswerKind, relayPackets } from "./packet-relay.ts";
import { BAND, encodeBand, encodePkt, FLUSH, readPkt } from "./pkt-line.ts";

const TOKEN = "ghs_known0123456789";

async function* chunksOf(bytes: Buffer, size: number): AsyncGenerator<Buffer> {
  for (let from = 0; from < bytes.length; from += size) yield bytes.subarray(from, from + size);
}

async function relayed(bytes: Buffer, kind: AnswerKind, size = bytes.length): Promise<Buffer> {
  const known = [{ id: "code/app", value: TOKEN }];
  const redactor = new Redactor(
    () => known,
    () => {},
    { keepsLength: true },
  );
  const out: Buffer[] = [];
  for await (const part of relayPackets(chunksOf(bytes, size), redactor, kind)) {
    // What comes out at any moment is whole, except inside a plain pack.
    if (kind !== "fetch") packetsOf(part, kind);
    out.push(part);
  }
  return Buffer.concat(out);
}

/** Throws unless the bytes are whole packets. */
function packetsOf(bytes: Buffer, kind: AnswerKind): (Buffer | undefined)[] {
  const packets: (Buffer | undefined)[] = [];
  for (let offset = 0; offset < bytes.length; ) {
    if (kind === "fetch" && bytes.toString("latin1", offset, offset + 4) === "PACK") break;
    const pkt = readPkt(bytes, offset);
    if (pkt === undefined) throw new Error("half a packet");
    packets.push(pkt.payload);
    offset += pkt.raw.length;
  }
  return packets;
}

function bandText(bytes: Buffer, band: number, kind: AnswerKind): string {
  return packetsOf(bytes, kind)
    .filter((payload) => payload?.[0] === band)
    .map((payload) => payload?.subarray(1).toString("latin1"))
    .join("");
}

describe("passing an answer of a git host on", () => {
  it("what has no known value in it passes byte for byte, however it arrives", async () => {
    const bytes = Buffer.concat([
      encodePkt("# service=git-upload-pack\n"),
      FLUSH,
      encodePkt(`${"1".repeat(40)} HEAD\0multi_ack side-band-64k\n`),
      Buffer.from("0001"),
      encodePkt(Buffer.from([0xff, 0xfe, 0x00])),
      FLUSH,
    ]);

    for (let size = 1; size <= bytes.length; size += 1) {
      expect((await relayed(bytes, "refs", size)).equals(bytes)).toBe(true);
    }
  });

  it("a value in an advertisement is masked and the packets stay whole", async () => {
    const bytes = Buffer.concat([encodePkt(`${"1".repeat(40)} refs/heads/${TOKEN}\n`), FLUSH]);

    const text = (await relayed(bytes, "refs")).toString();

    expect(text).not.toContain(TOKEN);
    expect(text).toContain(`refs/heads/${"*".repeat(TOKEN.length)}`);
  });

  it("a value cut at any place by the bands of a hook's words is masked", async () => {
    const words = `remote says ${TOKEN} twice ${TOKEN}\n`;
    for (let cut = 1; cut < words.length; cut += 1) {
      const bytes = Buffer.concat([
        encodeBand(BAND.progress, words.slice(0, cut)),
        encodeBand(BAND.data, "000eunpack ok\n"),
        encodeBand(BAND.progress, words.slice(cut)),
        FLUSH,
      ]);

      const out = await relayed(bytes, "push");

      const mask = "*".repeat(TOKEN.length);
      expect(bandText(out, BAND.progress, "push")).toBe(`remote says ${mask} twice ${mask}\n`);
      expect(bandText(out, BAND.data, "push")).toBe("000eunpack ok\n");
    }
  });

  it("a value inside the report keeps the lengths of its packets", async () => {
    const report = Buffer.concat([encodePkt(`ng refs/heads/a no ${TOKEN}\n`), FLUSH]);

    const out = await relayed(Buffer.concat([encodeBand(BAND.data, report), FLUSH]), "push");

    const inner = Buffer.from(bandText(out, BAND.data, "push"), "latin1");
    expect(readPkt(inner, 0)?.payload?.toString()).toBe(
      `ng refs/heads/a no ${"*".repeat(TOKEN.length)}\n`,
    );
  });

  it("a fetched pack keeps its length, and holds no value that a host puts there in plain", async () => {
    const packOf = (text: string) =>
      Buffer.concat([Buffer.from(`PACK${text}`), Buffer.alloc(70_000, 7)]);
    const masked = packOf("*".repeat(TOKEN.length));
    const banded = (pack: Buffer) =>
      Buffer.concat([
        encodePkt("packfile\n"),
        encodeBand(BAND.progress, `counting ${TOKEN}`),
        encodeBand(BAND.data, pack),
        FLUSH,
      ]);
    const plain = (pack: Buffer) => Buffer.concat([encodePkt("NAK\n"), pack]);

    for (const [sent, passed] of [
      [packOf(TOKEN), masked],
      [masked, masked],
    ] as const) {
      for (const size of [1, 5, 4096, 200_000]) {
        const out = await relayed(banded(sent), "fetch", size);
        expect(Buffer.from(bandText(out, BAND.data, "fetch"), "latin1").equals(passed)).toBe(true);
        expect(bandText(out, BAND.progress, "fetch")).not.toContain(TOKEN);
        expect((await relayed(plain(sent), "fetch", size)).equals(plain(passed))).toBe(true);
      }
    }
  });

  it.each([
    ["a page", Buffer.from("<html>hello</html>")],
    ["half a packet", Buffer.from("00ffabc")],
  ])("%s is refused", async (_what, bytes) => {
    await expect(relayed(bytes, "refs")).rejects.toMatchObject({ code: "UPSTREAM_REFUSED" });
  });
});
