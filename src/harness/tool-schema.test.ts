import { describe, expect, it } from "@jest/globals";
import { mendedSchema } from "./tool-schema.ts";

const object = (more: object = {}) => ({ type: "object", ...more });

function fits(given: unknown) {
  const mended = mendedSchema(given);
  if (mended.kind === "unfit") throw new Error(mended.why);
  return mended;
}

describe("the schema of a foreign tool", () => {
  it.each([
    object(),
    object({ properties: { q: { type: "string", pattern: "^(a+)+$" } }, required: ["q"] }),
    object({
      properties: { a: { anyOf: [{ type: "string" }, { $ref: "#/$defs/b" }] } },
      $defs: { b: {} },
    }),
    object({ additionalProperties: false, "x-own": { anything: [1] } }),
    object({ properties: { "a.b-c_D": { type: ["string", "null"], enum: ["x", null] } } }),
  ])("that the API takes stays as it is: %j", (schema) => {
    expect(fits(schema)).toEqual({ kind: "fits", schema, said: [] });
  });

  it.each([undefined, null, true, {}, "none", []])(
    "that is none allows any object: %j",
    (given) => {
      expect(fits(given).schema).toEqual({ type: "object" });
    },
  );

  it.each(["oneOf", "anyOf", "allOf", "not"])("says %s at its root in words", (keyword) => {
    const part =
      keyword === "not" ? { required: ["id"] } : [{ required: ["id"] }, { required: ["slug"] }];
    const properties = { id: { type: "string" }, slug: { type: "string" } };

    const { schema, said } = fits(object({ properties, [keyword]: part }));

    expect(schema).toEqual(object({ properties }));
    expect(said).toEqual([`The input must also satisfy ${keyword}: ${JSON.stringify(part)}`]);
  });

  it("says properties in words whose names the API does not take, and lets them in", () => {
    const { schema, said } = fits(
      object({
        properties: {
          ok: { type: "string" },
          "filter[name]": { type: "string" },
          $top: { type: "integer" },
        },
        required: ["ok", "$top"],
        additionalProperties: false,
      }),
    );

    expect(schema).toEqual(object({ properties: { ok: { type: "string" } }, required: ["ok"] }));
    expect(said.join("\n")).toMatch(/"filter\[name\]": \{"type":"string"\}[^]*"\$top"/);
  });

  it.each([
    [{ minimum: 0, exclusiveMinimum: true }, { exclusiveMinimum: 0 }],
    [{ maximum: 9, exclusiveMaximum: false }, { maximum: 9 }],
    [
      { type: "array", items: [{ type: "string" }], additionalItems: false },
      { type: "array", prefixItems: [{ type: "string" }], items: false },
    ],
    [{ type: "string", required: true }, { type: "string" }],
    [{ type: "text" }, {}],
    [{ type: "file", format: 7, pattern: "(?i)x", minLength: -1, enum: [] }, {}],
    [{ $id: "https://x", $schema: "http://json-schema.org/draft-04/schema#", id: "y" }, {}],
    [{ anyOf: [] }, {}],
    [{ properties: ["a"] }, {}],
  ])("in an older or broken dialect is put into the API's: %j", (given, want) => {
    expect(fits(object({ properties: { a: given } })).schema).toEqual(
      object({ properties: { a: want } }),
    );
  });

  it("with a reference at its root is what that points at", () => {
    const $defs = { Input: object({ properties: { q: { type: "string" } } }) };

    expect(fits({ $ref: "#/$defs/Input", $defs }).schema).toEqual({ ...$defs.Input, $defs });
    expect(fits({ $ref: "#" }).schema).toEqual({ type: "object" });
    expect(fits({ $ref: "#/$defs/a", $defs: { a: { $ref: "#/$defs/a" } } }).schema.type).toBe(
      "object",
    );
    expect(fits({ $ref: "https://elsewhere/x" }).schema).toMatchObject({ type: "object" });
  });

  it("of something else than an object is said in words", () => {
    const { schema, said } = fits({ type: "array", items: { type: "string" } });

    expect(schema.type).toBe("object");
    expect(said[0]).toContain('{"type":"array","items":{"type":"string"}}');
  });

  it("that is too deep or too large is not offered", () => {
    let deep: object = {};
    for (let i = 0; i < 40; i += 1) deep = { properties: { a: deep } };

    expect(mendedSchema(deep)).toMatchObject({
      kind: "unfit",
      why: expect.stringContaining("deeper"),
    });
    expect(mendedSchema(object({ description: "x".repeat(70_000) }))).toMatchObject({
      kind: "unfit",
      why: expect.stringContaining("larger"),
    });
  });
});
