import { describe, expect, it } from "@jest/globals";
import { z } from "zod";
import { crdSchema } from "./crd-schema.ts";

const text = z.string().max(10).describe("Text.");

function refusal(schema: z.ZodType): string {
  try {
    crdSchema(schema, ".spec");
  } catch (error) {
    return (error as Error).message;
  }
  return "";
}

describe("what the API server would refuse is refused with its path", () => {
  it.each([
    {
      name: "a union of two types",
      schema: z.object({ a: z.union([z.string(), z.int()]).describe("Either.") }),
      want: ".spec.a: anyOf repeats types; use optional fields plus a validation rule",
    },
    {
      name: "a field that may be anything",
      schema: z.object({ a: z.unknown().describe("Anything.") }),
      want: ".spec.a: has no type; the API server needs one unless the field keeps unknown fields",
    },
    {
      name: "a schema with an id, which becomes a definition",
      schema: z.object({ a: text.meta({ id: "text" }) }),
      want: '.spec: "definitions" is not part of a structural schema',
    },
    {
      name: "a field without a description",
      schema: z.object({ a: z.string().max(10) }),
      want: ".spec.a: has no description",
    },
    {
      name: "a string without a bound",
      schema: z.object({ a: z.object({ b: z.string().describe("B.") }).describe("A.") }),
      want: ".spec.a.b: has no maxLength",
    },
    {
      name: "a list without a bound",
      schema: z.object({ a: z.array(text).describe("A.") }),
      want: ".spec.a: has no maxItems",
    },
    {
      name: "an item without a bound",
      schema: z.object({ a: z.array(z.string().describe("B.")).max(3).describe("A.") }),
      want: ".spec.a[]: has no maxLength",
    },
    {
      name: "a map without a bound",
      schema: z.object({ a: z.record(z.string(), text).describe("A.") }),
      want: ".spec.a: has no maxProperties",
    },
    {
      name: "a keyed list whose key may be absent",
      schema: z.object({
        a: z
          .array(z.object({ name: text.optional() }).describe("B."))
          .max(3)
          .meta({ "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"] })
          .describe("A."),
      }),
      want: ".spec.a: the keys of a list of type map must be required fields of its items",
    },
  ])("$name", ({ schema, want }) => {
    expect(refusal(schema.describe("Spec."))).toContain(want);
  });
});

describe("what zod says too much of is repaired", () => {
  it("integers lose the bounds of JavaScript and gain a format", () => {
    const schema = z.object({ a: z.int().min(1).describe("A."), b: z.int().max(9).describe("B.") });

    expect(crdSchema(schema.describe("Spec."), ".spec").properties).toEqual({
      a: { type: "integer", format: "int64", minimum: 1, description: "A." },
      b: { type: "integer", format: "int32", maximum: 9, description: "B." },
    });
  });

  it("an open object keeps unknown fields, a closed one says nothing of others", () => {
    const schema = z.object({ a: z.looseObject({}).describe("A.") }).describe("Spec.");

    expect(crdSchema(schema, ".spec")).toEqual({
      type: "object",
      description: "Spec.",
      required: ["a"],
      properties: {
        a: { type: "object", description: "A.", "x-kubernetes-preserve-unknown-fields": true },
      },
    });
  });

  it("a field with a default is not required", () => {
    const schema = z.object({ a: text.default("x") }).describe("Spec.");

    expect(crdSchema(schema, ".spec")).toEqual({
      type: "object",
      description: "Spec.",
      properties: { a: { type: "string", maxLength: 10, default: "x", description: "Text." } },
    });
  });
});
