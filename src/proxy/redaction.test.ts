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

const codes = (text: string) => Array.from(text, (char) => char.charCodeAt(0));
const hexOf = (code: number, digits: number) => code.toString(16).padStart(digits, "0");
const special = /[^A-Za-z0-9]/g;
const inAll = (write: (code: number) => string) => codes(value).map(write).join("");
const inSpecials = (write: (code: number) => string) =>
  value.replaceAll(special, (char) => write(char.charCodeAt(0)));
const percent = (code: number) => `%${hexOf(code, 2).toUpperCase()}`;
const unicode = (code: number) => `\\u${hexOf(code, 4)}`;
const names: Readonly<Record<string, string>> = {
  "/": "sol",
  '"': "quot",
  "+": "plus",
  "?": "quest",
  "=": "equals",
  "%": "percnt",
};

/** As ordinary encoders write the characters that they change, or all. */
const written: Record<string, string> = {
  "percent-encoded but the slash": encodeURIComponent(value).replaceAll("%2F", "/"),
  "one character percent-encoded": value.replace("+", "%2B"),
  "all percent-encoded": inAll(percent),
  "percent-encoded twice": encodeURIComponent(encodeURIComponent(value)),
  "percent-encoded three times": encodeURIComponent(encodeURIComponent(encodeURIComponent(value))),
  "with the escape of old browsers": inSpecials((code) => `%u${hexOf(code, 4)}`),
  "JSON in JSON in JSON": JSON.stringify(JSON.stringify(value)),
  "with the escapes of JSON": inAll(unicode),
  "with those in capitals": inSpecials((code) => `\\u${hexOf(code, 4).toUpperCase()}`),
  "with those, in JSON again": JSON.stringify(inSpecials(unicode)),
  "percent-encoded, with those for the percent": encodeURIComponent(value).replaceAll(
    "%",
    unicode(0x25),
  ),
  "with the short escapes of JavaScript": inAll((code) => `\\x${hexOf(code, 2)}`),
  "with the long escapes of JavaScript": inSpecials((code) => `\\u{${hexOf(code, 2)}}`),
  "with the escapes of Python": inSpecials((code) => `\\U${hexOf(code, 8)}`),
  "in octal": inAll((code) => `\\${code.toString(8).padStart(3, "0")}`),
  "quoted for a shell": inSpecials((code) => `\\${String.fromCharCode(code)}`),
  "with decimal entities": inAll((code) => `&#${code};`),
  "with hexadecimal entities": inSpecials((code) => `&#x${hexOf(code, 2).toUpperCase()};`),
  "with entities that have zeros": inSpecials((code) => `&#x${hexOf(code, 4)};`),
  "with named entities": value.replaceAll(/[/"+?=%]/g, (char) => `&${names[char]};`),
  "with entities of entities": inSpecials((code) => `&amp;#${code};`),
  "quoted-printable": inSpecials((code) => `=${hexOf(code, 2).toUpperCase()}`).replace(
    "k",
    "k=\r\n",
  ),
  "base64, percent-encoded": encodeURIComponent(base64(`u:${value}`)),
  "base64 of a percent-encoded pair": base64(`u:${encodeURIComponent(value)}`),
  "base64 of JSON": base64(JSON.stringify({ a: value })),
  "base64 in lines": base64(`user:${value}`).replaceAll(/.{16}/g, "$&\n"),
  "base64 in lines, indented": base64(`user:${value}`).replaceAll(/.{16}/g, "$&\r\n    "),
  "base64 in lines, in JSON": JSON.stringify(base64(`user:${value}`).replaceAll(/.{16}/g, "$&\n")),
  "each character in a way of its own": codes(value)
    .map((code, index) => [percent, unicode, (one: number) => `&#${one};`][index % 3]?.(code))
    .join(""),
};

/** What must be gone: any form we know, and any long piece of the plain value. */
function expectClean(text: string) {
  for (const form of encodedForms(value)) expect(text).not.toContain(form);
  expect(text).not.toContain(encodeURIComponent(value));
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

  it.each(Object.entries(written))(
    "takes the value out however it is written: %s",
    (_name, text) => {
      const clean = redactor.text(`before ${text} after`);

      expect(clean).toContain("[redacted:v/e]");
      expect(clean).toMatch(/^before .{0,30} after$/s);
    },
  );

  it.each(Object.entries(written))("and out of a stream split anywhere: %s", (_name, text) => {
    const given = `before ${text} after`;
    const whole = redactor.text(given);

    for (let at = 0; at <= given.length; at += 1) {
      const pieces = redactor.pieces();
      const out = [pieces.push(given.slice(0, at)), pieces.push(given.slice(at)), pieces.end()];
      expect(out.join("")).toBe(whole);
    }
  });

  it.each([
    ["a percent before it", "41bc/def-xyz", "%41bc%2Fdef-xyz"],
    ["a backslash before it", "nobody/knows", "\\nobody\\/knows"],
    ["escapes of its own", "a%41&amp;b\\u0041c", "a%41&amp;b\\u0041c"],
    ["those escaped", "a%41&amp;b", "a%2541&amp;amp;b"],
    ["a space written as plus", "correct horse", "correct+horse"],
  ])("is not led astray by %s", (_name, secret, text) => {
    expect(redactorOf([{ id: "v", value: secret }]).text(`<${text}>`)).toMatch(
      /^<%?\\?\[redacted:v\]>$/,
    );
  });

  it("takes occurrences that overlap as one, in a stream too", () => {
    const twofold = redactorOf([{ id: "v", value: "abcdabcd" }]);
    const text = "-abcdabcdabcd-abcdabcd";
    const stream = twofold.pieces();

    const pieces = [...Array.from(text, (char) => stream.push(char)), stream.end()];

    expect(twofold.text(text)).toBe("-[redacted:v]-[redacted:v]");
    expect(pieces.join("")).toBe("-[redacted:v]-[redacted:v]");
  });

  it.each([
    ["beginnings of the value", (text: string) => text.slice(0, -1)],
    ["the value itself", (text: string) => text],
    ["escapes", () => "\\"],
    ["escapes of its first character", (text: string) => percent(text.charCodeAt(0))],
    ["entities", () => "&amp;"],
  ])("takes time in proportion to the text: %s", (_name, pieceOf) => {
    const piece = pieceOf(value);
    const cpuOf = (length: number) => {
      const text = piece.repeat(Math.ceil(length / piece.length));
      const before = process.cpuUsage().user;
      redactor.text(text);
      return process.cpuUsage().user - before;
    };
    cpuOf(20_000);

    expect(cpuOf(800_000)).toBeLessThan(30 * Math.max(cpuOf(100_000), 2000));
  });

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
