import { readdirSync, readFileSync } from "node:fs";
import { describe, expect, it } from "@jest/globals";
import {
  CONDITIONS,
  conditionTypesOf,
  EVENT_REASONS,
  KIND_CONDITIONS,
  LOSS_REASONS,
  REASONS,
} from "../../src/api/conditions.ts";
import { buildObjectSchema } from "../../src/api/crd.ts";
import type { CrdSchema } from "../../src/api/crd-schema.ts";
import { KIND_NAMES, KINDS } from "../../src/api/kinds.ts";
import { KIND_EXAMPLES } from "../../src/cmd/generate/kind-examples.ts";
import { parseManifests, validateManifest } from "../../src/local/manifest.ts";

/** Without tests. */
function codeOf(folder: string): string {
  return readdirSync(`src/${folder}`, { recursive: true, encoding: "utf8" })
    .filter((name) => name.endsWith(".ts") && !name.endsWith(".test.ts"))
    .map((name) => readFileSync(`src/${folder}/${name}`, "utf8"))
    .join("");
}

describe("conditions and reasons", () => {
  it("every condition and every reason is used by a kind", () => {
    const used = KIND_NAMES.flatMap((kind) => Object.entries(KIND_CONDITIONS[kind]));

    expect(new Set(used.map(([type]) => type))).toEqual(new Set(Object.keys(CONDITIONS)));
    expect(new Set([...used.flatMap(([, reasons]) => reasons), ...LOSS_REASONS])).toEqual(
      new Set(Object.keys(REASONS)),
    );
  });

  it("every reason stands in code that sets it", () => {
    const code = ["operator", "harness", "local"].map(codeOf).join("");
    const reasons = Object.keys(REASONS);

    expect(reasons.filter((reason) => !code.includes(`"${reason}"`))).toEqual([]);
  });

  it("every reason of an Event stands in code that emits it", () => {
    const operator = codeOf("operator");
    const reasons = Object.keys(EVENT_REASONS);

    expect(reasons.filter((reason) => !operator.includes(`"${reason}"`))).toEqual([]);
  });

  it("names are PascalCase words and meanings are sentences", () => {
    for (const [name, meaning] of Object.entries({ ...CONDITIONS, ...REASONS, ...EVENT_REASONS })) {
      expect(name).toMatch(/^([A-Z][a-z]+)+$/);
      expect(meaning).toMatch(/^[A-Z`].*\.$/);
    }
  });

  it.each(KIND_NAMES)("%s says Ready, Reconciling and Stalled, as kstatus reads them", (kind) => {
    expect(conditionTypesOf(kind).slice(0, 3)).toEqual(["Ready", "Reconciling", "Stalled"]);
  });
});

describe("schemas", () => {
  it.each(KINDS)("rules of $kind say in back-quotes or in plain words what must be", (kind) => {
    for (const message of messagesOf(buildObjectSchema(kind))) {
      expect(message).toMatch(/must|there must be/);
      expect(message).not.toMatch(/[.]$/);
    }
  });

  it.each(KINDS)("rules of $kind use nothing that local mode cannot evaluate", (kind) => {
    const rules = JSON.stringify(buildObjectSchema(kind));

    expect(rules).not.toMatch(/quantity\(|isSorted\(|url\(|optionalOldSelf|[.]find\(|format[.]/);
  });

  it.each(KIND_NAMES)("the example of %s is accepted, and refused with another field", (kind) => {
    const [example] = parseManifests(JSON.stringify(KIND_EXAMPLES[kind]), "example");
    if (example === undefined) throw new Error("no example");

    expect(validateManifest(example, "example").kind).toBe(kind);
    expect(() => validateManifest(Object.assign(example, { other: 1 }), "example")).toThrow(
      'unknown field "other"',
    );
  });
});

function messagesOf(schema: CrdSchema): string[] {
  const children = [
    ...Object.values(schema.properties ?? {}),
    ...(schema.items ? [schema.items] : []),
  ];
  return [
    ...(schema["x-kubernetes-validations"] ?? []).map(({ message }) => message),
    ...children.flatMap(messagesOf),
  ];
}
