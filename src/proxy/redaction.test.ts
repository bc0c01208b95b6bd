import { describe, expect, it } from "@jest/globals";
import { array, assert, property, uint8Array } from "fast-check";
import { parseJsonText } from "./json-text.ts";
import { encodedForms, type KnownSecret, Redactor } from "./redaction.ts";

const value = 'CNRY-redaction/"k+9?=%~s Z';
const redactor = redactorOf([{ id: "v/e", value }]);

function redactorOf(secrets: readonly KnownSecret[], onHit?: () => void): Redactor {
  return new Redactor(() => secrets, onHit);
}

const base64 = (text: string) => Buffer.from(text).toString("base64");
const base64url = (text: string) => Buffer.from(text).toString("base64url");

/** Every form that a server could give a value back in and that we promise to find. */
const echoes: Record<string, string> = {
  raw: value,
  header: `Authorization: Bearer ${value}`,
  json: JSON.stringify({ a: value }),
  "json with escaped slashes": JSON.stringify(value).replaceAll("/", "\\/"),
  "url-encoded": `?token=${encodeURIComponent(value)}&x`,
  "url-encoded in lower case": encodeURIComponent(value).replaceAll(/%../g, (c) => c.toLowerCase()),
  form: `token=${encodeURIComponent(value).replaceAll("%20", "+")}`,
  hex: Buffer.from(value).toString("hex"),
  "hex in upper case": Buffer.from(value).toString("hex").toUpperCase(),
  base64: base64(value),
  "base64 after one byte": base64(`:${value} and more`),
  "base64 after two bytes": base64(`u:${value} and more`),
  "base64 of a Basic pair": `Basic ${base64(`user:${value}`)}`,
  base64url: base64url(value),
  "base64url after one byte": base64url(`:${value}…`),
  "base64url after two bytes": base64url(`u:${value}…`),
};

/** What must be gone: any form we know, and any long piece of the plain value. */
function expectClean(text: string) {
  for (const form of encodedForms(value)) expect(text).not.toContain(form);
  expect(text).not.toContain(value.slice(0, 12));
}

function through(chunks: readonly Uint8Array[]): string {
  const stream = redactor.stream();
  return Buffer.concat([...chunks.map((chunk) => stream.push(chunk)), stream.end()]).toString();
}

describe("Redactor", () => {
  it.each(Object.entries(echoes))("takes the value out of text: %s", (_name, text) => {
    const clean = redactor.text(`before ${text} after`);

    expectClean(clean);
    expect(clean).toContain("[redacted:v/e]");
    expect(clean).toMatch(/^before .* after$/s);
  });

  it.each(Object.entries(echoes))(
    "takes the value out of a stream split at every byte: %s",
    (_name, text) => {
      const bytes = Buffer.from(`before ${text} after`);
      const whole = redactor.text(bytes.toString("latin1"));

      for (let at = 0; at <= bytes.length; at += 1) {
        const split = through([bytes.subarray(0, at), bytes.subarray(at)]);
        expect(Buffer.from(split).toString("latin1")).toBe(whole);
      }
      const single = through([...bytes].map((byte) => Buffer.from([byte])));
      expectClean(single);
    },
  );

  it("gives out what it was given, in order, when nothing is found", () => {
    assert(
      property(array(uint8Array({ maxLength: 40 })), (chunks) => {
        const stream = redactor.stream();
        const out = Buffer.concat([...chunks.map((chunk) => stream.push(chunk)), stream.end()]);
        expect(out.equals(Buffer.concat(chunks))).toBe(true);
      }),
    );
  });

  it("holds nothing back when a chunk cannot be the start of a value", () => {
    const stream = redactor.stream();

    expect(stream.push(Buffer.from("event: ping\ndata: {}\n\n")).toString()).toBe(
      "event: ping\ndata: {}\n\n",
    );
  });

  it("cleans keys and values of JSON and leaves everything else as it is", () => {
    const given = {
      [`k ${value}`]: [value, 1, null, { deep: `x${value}` }],
      big: JSON.rawJSON("12345678901234567890"),
    };

    const text = JSON.stringify(redactor.json(given));

    expect(text).toBe(
      '{"k [redacted:v/e]":["[redacted:v/e]",1,null,{"deep":"x[redacted:v/e]"}],"big":12345678901234567890}',
    );
  });

  it.each([
    ["as it is", "[1,1234567890123456,{}]", '[1,"[redacted:v/n]",{}]'],
    ["with a sign and a fraction", "-1234567890123456.0", '"-[redacted:v/n].0"'],
    ["with an exponent", "1.234567890123456e15", '"[redacted:v/n]"'],
    ["inside a longer one", "99123456789012345600000", '"99[redacted:v/n]00000"'],
    ["that is not the value", "1234567890123457.0", "1234567890123457.0"],
  ])("takes a value made of digits out of a JSON number: %s", (_name, text, clean) => {
    const digits = redactorOf([{ id: "v/n", value: "1234567890123456" }]);

    expect(JSON.stringify(digits.json(parseJsonText(text, 8)))).toBe(clean);
  });

  it("knows a value that came after it was made, in texts, JSON and streams", () => {
    let known: readonly KnownSecret[] = [{ id: "v/e", value: "first-secret" }];
    const live = new Redactor(() => known);
    const stream = live.stream();
    const before = stream.push(Buffer.from("a first-sec"));

    known = [{ id: "v/e", value: "second-secret" }, ...known];
    const after = stream.push(Buffer.from("ret, second-sec"));
    const last = [stream.push(Buffer.from("ret, second")), stream.end()];

    expect(Buffer.concat([before, after, ...last]).toString()).toBe(
      "a [redacted:v/e], [redacted:v/e], second",
    );
    expect(live.text("second-secret")).toBe("[redacted:v/e]");
    expect(live.json({ a: "second-secret" })).toEqual({ a: "[redacted:v/e]" });
  });

  it("takes out at the end of a stream what has become a value while it was held back", () => {
    let known: readonly KnownSecret[] = [{ id: "v/e", value: "abcdefgh-and-more" }];
    const stream = new Redactor(() => known).stream();
    stream.push(Buffer.from("abcdefgh"));

    known = [{ id: "v/e", value: "abcdefgh" }, ...known];

    expect(stream.end().toString()).toBe("[redacted:v/e]");
  });

  it("counts every occurrence", () => {
    let hits = 0;
    const counting = redactorOf([{ id: "a", value: "abcdefgh" }], () => {
      hits += 1;
    });

    counting.text("abcdefgh abcdefgh");

    expect(hits).toBe(2);
  });

  it("knows several values and names each", () => {
    const two = redactorOf([
      { id: "one", value: "first-secret" },
      { id: "two", value: "second-secret" },
    ]);

    expect(two.text("first-secret second-secret")).toBe("[redacted:one] [redacted:two]");
  });

  it("does not find a reversed or a split value, as documented", () => {
    const reversed = value.split("").toReversed().join("");

    expect(redactor.text(reversed)).toBe(reversed);
    expect(redactor.text(`${value.slice(0, 8)} ${value.slice(8)}`)).toContain(value.slice(0, 8));
  });
});
