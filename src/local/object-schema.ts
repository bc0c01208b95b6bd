import { celEnv, isCelError, parse, plan } from "@bufbuild/cel";
import { Ajv, type ErrorObject } from "ajv";
import type { CrdSchema } from "../api/crd-schema.ts";

/**
 * A CRD's schema applied to one object, in the words of the API server: unknown fields, defaults, the
 * schema itself (ajv), lists keyed by a field, and CEL rules. Rules that look at `oldSelf` are left out.
 */

type Node = Record<string, unknown>;

/** Fields of `metadata` that a manifest may hold; the schema of a CRD does not list them. */
const METADATA_FIELDS = new Set(
  "name generateName namespace labels annotations finalizers ownerReferences uid resourceVersion generation creationTimestamp deletionTimestamp deletionGracePeriodSeconds managedFields selfLink".split(
    " ",
  ),
);

const METADATA: CrdSchema = {
  type: "object",
  properties: {
    namespace: { type: "string", maxLength: 63 },
    labels: { type: "object", additionalProperties: { type: "string" } },
    annotations: { type: "object", additionalProperties: { type: "string" } },
  },
};

/** `unknown field "spec.modle"`, one for each. */
export function findUnknownFields(value: unknown, schema: CrdSchema, path: string): string[] {
  if (Array.isArray(value)) {
    const items = schema.items ?? {};
    return value.flatMap((item, index) => findUnknownFields(item, items, `${path}[${index}]`));
  }
  if (!isNode(value) || schema["x-kubernetes-preserve-unknown-fields"]) return [];
  return Object.entries(value).flatMap(([name, child]) => {
    const childPath = join(path, name);
    if (path === "metadata") return METADATA_FIELDS.has(name) ? [] : unknownField(childPath);
    const childSchema = schema.properties?.[name] ?? schema.additionalProperties;
    return childSchema === undefined
      ? unknownField(childPath)
      : findUnknownFields(child, childSchema, childPath);
  });
}

/** Fills in defaults, in place. A field that is null counts as absent. */
export function applyDefaults(value: unknown, schema: CrdSchema): void {
  if (Array.isArray(value)) {
    for (const item of value) applyDefaults(item, schema.items ?? {});
  }
  if (!isNode(value)) return;
  for (const [name, child] of Object.entries(schema.properties ?? {})) {
    if (value[name] === null) delete value[name];
    if (value[name] === undefined && child.default !== undefined) {
      value[name] = structuredClone(child.default);
    }
    applyDefaults(value[name], child);
  }
}

/** Everything else that is wrong with an object whose defaults are filled in. */
export function findProblems(object: object, schema: CrdSchema): string[] {
  const problems = [...findSchemaProblems(object, withMetadata(schema))];
  problems.push(...findDuplicates(object, schema, ""));
  // As in the API server: rules are not evaluated over values that do not have the declared types.
  return problems.length > 0 ? problems : findBrokenRules(object, schema, "");
}

function withMetadata(schema: CrdSchema): CrdSchema {
  const own = schema.properties?.["metadata"]?.properties ?? {};
  const metadata = { ...METADATA, properties: { ...METADATA.properties, ...own } };
  return { ...schema, properties: { ...schema.properties, metadata } };
}

function findSchemaProblems(object: object, schema: CrdSchema): string[] {
  const ajv = new Ajv({ allErrors: true, strict: false, validateFormats: false, verbose: true });
  const validate = ajv.compile(schema);
  return validate(object) ? [] : (validate.errors ?? []).map(describeProblem);
}

function describeProblem(error: ErrorObject): string {
  const path = toFieldPath(error.instancePath);
  const data: unknown = error.data;
  const params: Node = error.params;
  const limit = String(params["limit"]);
  const invalid = (shown: string, text: string) =>
    `${path}: Invalid value: ${shown}: ${path} in body ${text}`;
  switch (error.keyword) {
    case "required":
      return `${join(path, String(params["missingProperty"]))}: Required value`;
    case "type": {
      const actual = JSON.stringify(typeName(data));
      return invalid(actual, `must be of type ${String(params["type"])}: ${actual}`);
    }
    case "enum": {
      const accepted = Array.isArray(error.schema) ? error.schema : [];
      const list = accepted.map((value) => JSON.stringify(value)).join(", ");
      return `${path}: Unsupported value: ${JSON.stringify(data)}: supported values: ${list}`;
    }
    case "minimum":
      return invalid(JSON.stringify(data), `should be greater than or equal to ${limit}`);
    case "maximum":
      return invalid(JSON.stringify(data), `should be less than or equal to ${limit}`);
    case "maxLength":
      return `${path}: Too long: may not be more than ${limit} bytes`;
    case "minLength":
      return invalid(JSON.stringify(data), `should be at least ${limit} chars long`);
    case "maxItems":
    case "maxProperties":
      return `${path}: Too many: ${sizeOf(data)}: must have at most ${limit} items`;
    case "minItems":
      return invalid(String(sizeOf(data)), `should have at least ${limit} items`);
    case "minProperties":
      return invalid(String(sizeOf(data)), `should have at least ${limit} properties`);
    default:
      return `${path}: Invalid value: ${error.message ?? error.keyword}`;
  }
}

/** A list of type map holds one item for each value of its key. */
function findDuplicates(value: unknown, schema: CrdSchema, path: string): string[] {
  const key = schema["x-kubernetes-list-map-keys"]?.[0];
  const seen = new Set<unknown>();
  const own: string[] = [];
  if (Array.isArray(value) && key !== undefined) {
    for (const [index, item] of value.entries()) {
      const id: unknown = isNode(item) ? item[key] : undefined;
      if (seen.has(id)) {
        own.push(`${path}[${index}]: Duplicate value: ${JSON.stringify({ [key]: id })}`);
      }
      seen.add(id);
    }
  }
  return [...own, ...eachChild(value, schema, path, findDuplicates)];
}

function findBrokenRules(value: unknown, schema: CrdSchema, path: string): string[] {
  const own = (schema["x-kubernetes-validations"] ?? [])
    .filter(({ rule }) => !rule.includes("oldSelf") && !holds(rule, value))
    .map(({ message }) => `${path}: Invalid value: ${show(value)}${message}`);
  return [...own, ...eachChild(value, schema, path, findBrokenRules)];
}

function eachChild(
  value: unknown,
  schema: CrdSchema,
  path: string,
  visit: (value: unknown, schema: CrdSchema, path: string) => string[],
): string[] {
  if (Array.isArray(value)) {
    const items = schema.items ?? {};
    return value.flatMap((item, index) => visit(item, items, `${path}[${index}]`));
  }
  if (!isNode(value)) return [];
  return Object.entries(value).flatMap(([name, child]) => {
    const childSchema = schema.properties?.[name] ?? schema.additionalProperties;
    return childSchema === undefined ? [] : visit(child, childSchema, join(path, name));
  });
}

const planned = new Map<string, (value: unknown) => boolean>();

function holds(rule: string, value: unknown): boolean {
  let evaluate = planned.get(rule);
  if (evaluate === undefined) {
    const run = plan(celEnv(), parse(rule));
    evaluate = (self) => {
      // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- JSON values are CEL input
      const result = run({ self: self as string });
      if (isCelError(result))
        throw new Error(`rule ${rule} cannot be evaluated`, { cause: result });
      return result === true;
    };
    planned.set(rule, evaluate);
  }
  return evaluate(value);
}

function unknownField(path: string): string[] {
  return [`unknown field "${path}"`];
}

/** `/spec/tools/0/name` → `spec.tools[0].name`. */
function toFieldPath(pointer: string): string {
  const parts = pointer.split("/").slice(1);
  return parts
    .map((part) => part.replaceAll("~1", "/").replaceAll("~0", "~"))
    .reduce((path, part) => (/^\d+$/.test(part) ? `${path}[${part}]` : join(path, part)), "");
}

function join(path: string, name: string): string {
  return path === "" ? name : `${path}.${name}`;
}

/** The API server shows the value of a field, and nothing of an object or list. */
function show(value: unknown): string {
  return typeof value === "object" ? "" : `${JSON.stringify(value)}: `;
}

function typeName(value: unknown): string {
  if (value === null) return "null";
  if (Array.isArray(value)) return "array";
  return typeof value === "number" && Number.isInteger(value) ? "integer" : typeof value;
}

function sizeOf(value: unknown): number {
  if (Array.isArray(value)) return value.length;
  return isNode(value) ? Object.keys(value).length : 0;
}

function isNode(value: unknown): value is Node {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
