import { describe, expect, it } from "@jest/globals";
import { array, assert, property, uint8Array } from "fast-check";
import { encodedForms, Redactor } from "./redaction.ts";

const value = 'CNRY-redaction/"k+9?=%~s Z';
const redactor = new Redactor([{ id: "v/e", value }]);
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

  it("counts every occurrence", () => {
    let hits = 0;
    const counting = new Redactor([{ id: "a", value: "abcdefgh" }], () => {
      hits += 1;
    });

    counting.text("abcdefgh abcdefgh");

    expect(hits).toBe(2);
  });

  it("knows several values and names each", () => {
    const two = new Redactor([
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
