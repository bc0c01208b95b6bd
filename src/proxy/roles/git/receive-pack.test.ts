import { describe, expect, it } from "@jest/globals";
import { encodePkt, FLUSH, readPkt } from "./pkt-line.ts";
import { pushReport, readPush } from "./receive-pack.ts";

const OLD = "1".repeat(40);
const NEW = "2".repeat(40);
const CAPABILITIES = "report-status side-band-64k agent=git/2.39";

function command(ref: string): string {
  return `${OLD} ${NEW} ${ref}`;
}

async function* chunksOf(bytes: Buffer, size = bytes.length): AsyncGenerator<Buffer> {
  for (let from = 0; from < bytes.length; from += size) yield bytes.subarray(from, from + size);
}

function pushOf(...lines: string[]): Buffer {
  return Buffer.concat([...lines.map((line) => encodePkt(Buffer.from(line, "latin1"))), FLUSH]);
}

async function refsOf(bytes: Buffer): Promise<string[]> {
  const { commands } = await readPush(chunksOf(bytes));
  return commands.map(({ ref }) => ref);
}

describe("reading the commands of a push", () => {
  it("commands and capabilities are found however the bytes arrive, and none is lost", async () => {
    const pack = Buffer.from("PACK and more");
    const bytes = Buffer.concat([
      pushOf(`${command("refs/heads/a")}\0 ${CAPABILITIES}`, `${command("refs/heads/b")}\n`),
      pack,
    ]);

    for (let size = 1; size <= bytes.length; size += 1) {
      const chunks = chunksOf(bytes, size);
      const push = await readPush(chunks);
      const rest: Buffer[] = [];
      for await (const chunk of chunks) rest.push(chunk);

      expect(push.commands.map(({ ref }) => ref)).toEqual(["refs/heads/a", "refs/heads/b"]);
      expect(push.capabilities.has("side-band-64k")).toBe(true);
      expect(Buffer.concat([push.read, ...rest]).equals(bytes)).toBe(true);
    }
  });

  it("the probe before a long push has no commands and nothing after it", async () => {
    expect(await readPush(chunksOf(FLUSH))).toMatchObject({ commands: [], hasPack: false });
    await expect(readPush(chunksOf(Buffer.concat([FLUSH, FLUSH])))).rejects.toMatchObject({
      code: "INPUT_INVALID",
    });
  });

  it("a capability is known by its name, whatever its value", async () => {
    const bytes = pushOf(`${command("refs/heads/a")}\0 push-options=1 agent=a=b quiet`);

    const { capabilities } = await readPush(chunksOf(bytes));

    expect([...capabilities]).toEqual(["push-options", "agent", "quiet"]);
  });

  it("shallow lines stand before the commands", async () => {
    const bytes = pushOf(`shallow ${OLD}\n`, `${command("refs/heads/a")}\0${CAPABILITIES}`);

    expect(await refsOf(bytes)).toEqual(["refs/heads/a"]);
  });

  it("the commands of a signed push are those inside its certificate and any beside it", async () => {
    const bytes = pushOf(
      `push-cert\0${CAPABILITIES}\n`,
      "certificate version 0.1\n",
      "pusher A <a@example.com> 1 +0000\n",
      "\n",
      `${command("refs/heads/main")}\n`,
      "-----BEGIN PGP SIGNATURE-----\n",
      `${command("refs/heads/after")}\n`,
      "-----END PGP SIGNATURE-----\n",
      "push-cert-end\n",
      command("refs/heads/beside"),
    );

    expect(await refsOf(bytes)).toEqual([
      "refs/heads/main",
      "refs/heads/after",
      "refs/heads/beside",
    ]);
  });

  it.each([
    [
      "a certificate whose packets are not lines",
      [
        `push-cert\0${CAPABILITIES}\n`,
        `${OLD} ${NEW} refs/heads/agent/x`,
        "../main\n",
        "push-cert-end\n",
      ],
    ],
    ["a certificate with a NUL", [`push-cert\0${CAPABILITIES}\n`, "a\0b\n", "push-cert-end\n"]],
    ["a certificate with a CR", [`push-cert\0${CAPABILITIES}\n`, "a\rb\n", "push-cert-end\n"]],
    ["a certificate without end", [`push-cert\0${CAPABILITIES}\n`, "pusher\n"]],
    ["a command of another form", [`${OLD} ${NEW}`]],
    ["ids in capitals", [`${"A".repeat(40)} ${NEW} refs/heads/a`]],
    ["a short id", [`${"1".repeat(39)} ${NEW} refs/heads/a`]],
    ["a ref outside refs/", [command("HEAD")]],
    ["a ref with ..", [command("refs/heads/agent/../main")]],
    ["a ref with a space", [command("refs/heads/agent/x main")]],
    ["a ref with a line break", [command("refs/heads/agent/x\nrefs/heads/main")]],
    ["a ref with a control character", [command("refs/heads/agent/x\r")]],
    ["one ref twice", [command("refs/heads/a"), command("refs/heads/a")]],
    ["capabilities twice", [`${command("refs/heads/a")}\0a`, `${command("refs/heads/b")}\0b`]],
    ...["\t", "\r", "\n", "\v", "\f", "\0", "\u007f", "\u00a0", "  "].map(
      (gap): [string, string[]] => [
        `${JSON.stringify(gap)} between capabilities`,
        [`${command("refs/heads/a")}\0report-status${gap}push-options`],
      ],
    ),
    ["a line of words", [command("refs/heads/a"), "option x"]],
    ["nothing but shallow lines", [`shallow ${OLD}`]],
  ])("%s is refused, never passed on unread", async (_what, lines) => {
    await expect(readPush(chunksOf(pushOf(...lines)))).rejects.toMatchObject({
      code: "INPUT_INVALID",
    });
  });

  it.each([
    ["a length that is no number", Buffer.from("zzzz")],
    ["an odd mark", Buffer.from("0001")],
    ["a length below its own", Buffer.from("0003")],
    ["an end in the middle", Buffer.from("00a0half")],
    ["nothing", Buffer.alloc(0)],
  ])("%s is refused", async (_what, bytes) => {
    await expect(readPush(chunksOf(bytes))).rejects.toMatchObject({ code: "INPUT_INVALID" });
  });

  it("more commands than 64 KiB are refused before they are all there", async () => {
    async function* endless(): AsyncGenerator<Buffer> {
      for (let n = 0; ; n += 1) yield encodePkt(command(`refs/heads/agent/${n}`));
    }

    await expect(readPush(endless())).rejects.toMatchObject({ code: "INPUT_TOO_LARGE" });
  });
});

describe("the report on a push that is not passed on", () => {
  const commands = [{ oldId: OLD, newId: NEW, ref: "refs/heads/main" }];

  it("names each ref with its reason in one line, inside the band the client asked for", () => {
    const capabilities = new Set(["report-status", "side-band-64k"]);

    const report = pushReport({ commands, capabilities }, () => "policy:\nno\u001b[31m");

    const outer = readPkt(report, 0);
    expect(outer?.payload?.[0]).toBe(1);
    expect(outer?.payload?.subarray(1).toString()).toBe(
      "000eunpack ok\n0027ng refs/heads/main policy: no [31m\n0000",
    );
    expect(report.subarray(-4).toString()).toBe("0000");
  });

  it("is plain for a client without side bands", () => {
    const report = pushReport({ commands, capabilities: new Set() }, () => "policy: no");

    expect(report.toString()).toBe("000eunpack ok\n0022ng refs/heads/main policy: no\n0000");
  });
});
