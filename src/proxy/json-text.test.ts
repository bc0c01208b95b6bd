import { describe, expect, it } from "@jest/globals";
import { assert, jsonValue, property } from "fast-check";
import { parseJsonText } from "./json-text.ts";

describe("parseJsonText", () => {
  it("agrees with JSON.parse on any JSON", () => {
    assert(
      property(jsonValue(), (value) => {
        const text = JSON.stringify(value, null, 1);
        expect(JSON.stringify(parseJsonText(text, 64))).toBe(JSON.stringify(JSON.parse(text)));
      }),
    );
  });

  it.each(["12345678901234567890", "1.0", "1e400", "-0", "0.10", "[1,1E2]"])(
    "writes the number %s as it was read",
    (text) => {
      expect(JSON.stringify(parseJsonText(text, 64))).toBe(text);
    },
  );

  it.each([
    '{"a":1,"a":2}',
    String.raw`{"a":1,"\u0061":2}`,
    '[{"x":{"b":1,"c":[],"b":2}}]',
    '{"__proto__":1,"__proto__":2}',
  ])("refuses a key that comes twice: %s", (text) => {
    expect(() => parseJsonText(text, 64)).toThrow(
      expect.objectContaining({ code: "INPUT_INVALID", message: expect.stringContaining("twice") }),
    );
  });

  it.each([
    '{"a":{"a":1}}',
    '[{"a":1},{"a":2}]',
    '{"a":"a","b":["a","a"]}',
    '{"a":"\\",\\"a\\":"}',
  ])("takes the same name in different objects: %s", (text) => {
    expect(parseJsonText(text, 64)).toEqual(JSON.parse(text));
  });

  it("refuses deeper nesting than allowed before parsing it", () => {
    expect(() => parseJsonText("[".repeat(1_000_000), 64)).toThrow(/deeper than 64/);
    expect(parseJsonText("[".repeat(64) + "]".repeat(64), 64)).toBeDefined();
  });

  it.each([
    ["arrays", "[],"],
    ["objects", "{},"],
    ["numbers", "1.0,"],
    ["strings", '"",'],
    ["words", "null,"],
  ])("refuses more %s than allowed, and counts them before it builds any", (_name, one) => {
    const text = (count: number) => `[${one.repeat(count).slice(0, -1)}]`;
    const tooMany = expect.objectContaining({
      code: "INPUT_INVALID",
      message: expect.stringMatching(/more than 100 values and keys/),
      details: { limit: 100 },
    });

    expect(parseJsonText(text(99), 64, 100)).toHaveLength(99);
    expect(() => parseJsonText(text(100), 64, 100)).toThrow(tooMany);
    expect(() => parseJsonText(one.repeat(1_000_000), 64)).toThrow(/more than 100000 values/);
  });

  it("counts keys as values", () => {
    expect(() => parseJsonText('{"a":1,"b":2}', 64, 4)).toThrow(/more than 4 values and keys/);
    expect(parseJsonText('{"a":1,"b":2}', 64, 5)).toEqual({ a: 1, b: 2 });
  });

  it.each(["", "{", '{"a"}', "nul", '{"a":1}}', '"\u0001"', "[1,]"])("refuses %j", (text) => {
    expect(() => parseJsonText(text, 64)).toThrow(
      expect.objectContaining({ code: "INPUT_INVALID" }),
    );
  });

  it("reads four megabytes of escapes without exhausting a stack", () => {
    const text = JSON.stringify('"'.repeat(2_000_000));

    expect(parseJsonText(text, 64)).toHaveLength(2_000_000);
  });
});
