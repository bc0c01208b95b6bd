import { describe, expect, it } from "@jest/globals";
import { assert, jsonValue, property } from "fast-check";
import { copyExact, isNumberText, parseExact, withPlainNumbers } from "./exact-json.ts";

const ODD = [
  "1234567890123456789",
  "-9007199254740993",
  "10.0",
  "1e400",
  "1E5",
  "-0",
  "0.10",
  "1e-400",
];

describe("parseExact", () => {
  it("agrees with JSON.parse on any JSON", () => {
    assert(
      property(jsonValue(), (value) => {
        const text = JSON.stringify(value);
        expect(JSON.stringify(parseExact(text))).toBe(JSON.stringify(JSON.parse(text)));
      }),
    );
  });

  it.each(ODD)(
    "writes %s as it was read, at any depth and after any number of copies",
    (number) => {
      const text = `{"a":[{"b":${number}}],"c":${number}}`;

      expect(JSON.stringify(copyExact(copyExact(parseExact(text))))).toBe(text);
      expect(isNumberText(parseExact(number))).toBe(true);
    },
  );

  it.each(["0", "-1", "9007199254740991", "0.5", "1e+21", '"10.0"'])(
    "leaves %s an ordinary value",
    (text) => {
      expect(parseExact(text)).toBe(JSON.parse(text));
    },
  );

  it("throws for what is not JSON, also where a number looks odd", () => {
    expect(() => parseExact("{")).toThrow(/JSON/);
    expect(() => parseExact('{"a": 1.0')).toThrow(/JSON/);
  });
});

describe("withPlainNumbers", () => {
  it("gives numbers to calculate with", () => {
    expect(withPlainNumbers(parseExact('{"limit": 10.0, "big": 9007199254740993}'))).toEqual({
      limit: 10,
      big: 9007199254740992,
    });
    expect(withPlainNumbers(undefined)).toBeUndefined();
  });
});
