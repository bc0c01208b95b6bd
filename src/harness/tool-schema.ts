import { isNumberText } from "../protocol/exact-json.ts";

/**
 * Makes the input schema of a foreign tool one that the Messages API takes. The API answers one schema
 * that it does not take with an error for the whole request, so a single tool would end the session.
 * What has to go is said to the model in the tool's description: calls are sent as the model makes
 * them, and the server checks them. Pure. No pattern of a schema is ever run.
 */
export type MendedSchema =
  | { kind: "fits"; schema: ObjectSchema; said: string[] }
  /** It cannot be offered to the model. */
  | { kind: "unfit"; why: string };

export interface ObjectSchema {
  type: "object";
  [field: string]: unknown;
}

/** In characters of JSON, and in levels. */
const MAX_SCHEMA_CHARS = 64 * 1024;
const MAX_SCHEMA_DEPTH = 32;
/** Of what is said of one part that had to go. */
const SAID_CHARS = 2000;

/** What the API takes as the name of a property of the input. */
const PROPERTY_KEY = /^[a-zA-Z0-9_.-]{1,64}$/;
const COMBINATORS = ["oneOf", "anyOf", "allOf", "not", "if", "then", "else"] as const;
/** Name the schema or its dialect to others; the API knows one dialect. */
const IDENTITY = new Set(["$schema", "$id", "id", "$anchor", "$vocabulary", "$comment"]);
const TYPES = new Set(["object", "array", "string", "number", "integer", "boolean", "null"]);

export function mendedSchema(given: unknown): MendedSchema {
  if (depthOf(given) > MAX_SCHEMA_DEPTH) {
    return { kind: "unfit", why: `its input schema is deeper than ${MAX_SCHEMA_DEPTH} levels` };
  }
  if ((JSON.stringify(given) ?? "").length > MAX_SCHEMA_CHARS) {
    return {
      kind: "unfit",
      why: `its input schema is larger than ${MAX_SCHEMA_CHARS / 1024} KiB`,
    };
  }
  const said: string[] = [];
  const root = mended(isRecord(given) ? resolved(given) : {});
  if (root["type"] !== undefined && ![root["type"]].flat().includes("object")) {
    said.push(`As its server describes it, the input is: ${shown(given)}`);
  }
  for (const keyword of COMBINATORS) {
    if (root[keyword] === undefined) continue;
    said.push(`The input must also satisfy ${keyword}: ${shown(root[keyword])}`);
    delete root[keyword];
  }
  return { kind: "fits", schema: withKnownKeys({ ...root, type: "object" }, said), said };
}

/** A reference at the root is followed: the API wants to see an object there. */
function resolved(schema: Record<string, unknown>): Record<string, unknown> {
  let current = schema;
  for (let step = 0; step < MAX_SCHEMA_DEPTH; step += 1) {
    const { $ref: ref, ...rest } = current;
    if (typeof ref !== "string") return current;
    const target = ref.startsWith("#") ? pointedAt(schema, ref) : undefined;
    const { $defs, definitions } = schema;
    const shared = {
      ...($defs === undefined ? {} : { $defs }),
      ...(definitions === undefined ? {} : { definitions }),
    };
    current = { ...shared, ...rest, ...(isRecord(target) && target !== current ? target : {}) };
    if (!isRecord(target)) return current;
  }
  const { $ref: _endless, ...rest } = current;
  return rest;
}

function pointedAt(schema: unknown, ref: string): unknown {
  const path = ref
    .slice(1)
    .split("/")
    .filter((part) => part !== "");
  return path.reduce<unknown>((at, part) => {
    const key = part.replaceAll("~1", "/").replaceAll("~0", "~");
    return isRecord(at) && Object.hasOwn(at, key) ? at[key] : undefined;
  }, schema);
}

/** Properties whose names the API does not take are not declared; a call may have them all the same. */
function withKnownKeys(schema: ObjectSchema, said: string[]): ObjectSchema {
  const properties = schema["properties"];
  if (!isRecord(properties)) return schema;
  const odd = Object.entries(properties).filter(([key]) => !PROPERTY_KEY.test(key));
  if (odd.length === 0) return schema;
  for (const [key, value] of odd) {
    said.push(`The input may also have ${JSON.stringify(key.slice(0, 200))}: ${shown(value)}`);
  }
  const isOdd = new Set(odd.map(([key]) => key));
  const kept = Object.entries(properties).filter(([key]) => !isOdd.has(key));
  const { additionalProperties: _closed, required, ...rest } = schema;
  const stillRequired = Array.isArray(required)
    ? required.filter((key) => typeof key !== "string" || !isOdd.has(key))
    : [];
  return {
    ...rest,
    type: "object",
    properties: Object.fromEntries(kept),
    ...(stillRequired.length === 0 ? {} : { required: stillRequired }),
  };
}

/** A copy in the dialect of the API, without keywords whose values that dialect does not know. */
function mended(schema: Record<string, unknown>): Record<string, unknown> {
  const entries = Object.entries(fromOldDialects(schema)).flatMap(([keyword, value]) => {
    if (IDENTITY.has(keyword)) return [];
    const kept = keywordValue(keyword, value);
    return kept === undefined ? [] : [[keyword, kept] as const];
  });
  return Object.fromEntries(entries);
}

/** Drafts 3 to 7 say some things in other ways. */
function fromOldDialects(schema: Record<string, unknown>): Record<string, unknown> {
  const result = { ...schema };
  for (const [exclusive, bound] of [
    ["exclusiveMinimum", "minimum"],
    ["exclusiveMaximum", "maximum"],
  ] as const) {
    if (typeof result[exclusive] !== "boolean") continue;
    const isExclusive = result[exclusive];
    delete result[exclusive];
    if (!isExclusive || result[bound] === undefined) continue;
    result[exclusive] = result[bound];
    delete result[bound];
  }
  const { items } = result;
  if (Array.isArray(items)) {
    result["prefixItems"] = items;
    delete result["items"];
    if (result["additionalItems"] !== undefined) result["items"] = result["additionalItems"];
  }
  delete result["additionalItems"];
  return result;
}

/** The value as it may stand, or undefined when the keyword has to go. */
function keywordValue(keyword: string, value: unknown): unknown {
  switch (keyword) {
    case "type":
      return typeValue(value);
    case "properties":
    case "$defs":
    case "definitions":
    case "patternProperties":
    case "dependentSchemas":
      return schemasByName(keyword, value);
    case "items":
    case "additionalProperties":
    case "unevaluatedProperties":
    case "unevaluatedItems":
    case "contains":
    case "propertyNames":
    case "not":
    case "if":
    case "then":
    case "else":
      return subschema(value);
    case "oneOf":
    case "anyOf":
    case "allOf":
    case "prefixItems":
      return schemaList(value);
    case "required":
      return stringList(value);
    case "enum":
      return Array.isArray(value) && value.length > 0 ? value : undefined;
    case "minimum":
    case "maximum":
    case "exclusiveMinimum":
    case "exclusiveMaximum":
    case "multipleOf":
      return typeof value === "number" || isNumberText(value) ? value : undefined;
    case "minLength":
    case "maxLength":
    case "minItems":
    case "maxItems":
    case "minProperties":
    case "maxProperties":
    case "minContains":
    case "maxContains":
      return Number.isInteger(value) && Number(value) >= 0 ? value : undefined;
    case "pattern":
      return isPattern(value) ? value : undefined;
    case "title":
    case "description":
    case "format":
    case "$ref":
    case "contentEncoding":
    case "contentMediaType":
      return typeof value === "string" ? value : undefined;
    case "examples":
      return Array.isArray(value) ? value : undefined;
    default:
      return value;
  }
}

function typeValue(value: unknown): unknown {
  if (!Array.isArray(value)) return TYPES.has(String(value)) ? value : undefined;
  const known = [...new Set(value.filter((type) => TYPES.has(String(type))))];
  return known.length === 0 ? undefined : known;
}

function schemasByName(keyword: string, value: unknown): unknown {
  if (!isRecord(value)) return undefined;
  const entries = Object.entries(value).flatMap(([name, schema]) => {
    const kept = subschema(schema) ?? {};
    return keyword === "patternProperties" && !isPattern(name) ? [] : [[name, kept] as const];
  });
  return Object.fromEntries(entries);
}

function subschema(value: unknown): unknown {
  if (typeof value === "boolean") return value;
  return isRecord(value) ? mended(value) : undefined;
}

function schemaList(value: unknown): unknown {
  if (!Array.isArray(value) || value.length === 0) return undefined;
  return value.map((schema) => subschema(schema) ?? {});
}

function stringList(value: unknown): unknown {
  if (!Array.isArray(value)) return undefined;
  return [...new Set(value.filter((name) => typeof name === "string"))];
}

/** Only whether it can be read: a foreign pattern is compiled and never run. */
function isPattern(value: unknown): boolean {
  if (typeof value !== "string") return false;
  try {
    return new RegExp(value, "u").source !== "";
  } catch {
    return false;
  }
}

function shown(value: unknown): string {
  const text = JSON.stringify(value) ?? "";
  return text.length <= SAID_CHARS ? text : `${text.slice(0, SAID_CHARS)}…`;
}

function depthOf(value: unknown): number {
  if (typeof value !== "object" || value === null || isNumberText(value)) return 0;
  let deepest = 0;
  for (const member of Object.values(value)) {
    deepest = Math.max(deepest, depthOf(member));
    if (deepest > MAX_SCHEMA_DEPTH) break;
  }
  return deepest + 1;
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return (
    typeof value === "object" && value !== null && !Array.isArray(value) && !isNumberText(value)
  );
}
