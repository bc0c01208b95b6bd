import { z } from "zod";
import type { ValidationRule } from "./fields.ts";

/**
 * zod → structural OpenAPI v3 schema of a CustomResourceDefinition. What the API server would refuse,
 * or would accept without a bound or a description, is refused here with the path of the field, so
 * that a mistake shows when the CRDs are generated and not when somebody installs them.
 */

/** The part of apiextensions.k8s.io/v1 JSONSchemaProps that our kinds use. */
export interface CrdSchema {
  type?: "object" | "array" | "string" | "integer" | "number" | "boolean";
  description?: string;
  default?: unknown;
  format?: string;
  enum?: string[];
  pattern?: string;
  minimum?: number;
  maximum?: number;
  minLength?: number;
  maxLength?: number;
  minItems?: number;
  maxItems?: number;
  minProperties?: number;
  maxProperties?: number;
  required?: string[];
  properties?: Record<string, CrdSchema>;
  additionalProperties?: CrdSchema;
  items?: CrdSchema;
  "x-kubernetes-int-or-string"?: boolean;
  "x-kubernetes-preserve-unknown-fields"?: true;
  "x-kubernetes-list-type"?: "atomic" | "set" | "map";
  "x-kubernetes-list-map-keys"?: string[];
  "x-kubernetes-validations"?: ValidationRule[];
}

type Node = Record<string, unknown>;

const ACCEPTED_KEYS = new Set([
  "type",
  "description",
  "default",
  "format",
  "enum",
  "pattern",
  "minimum",
  "maximum",
  "minLength",
  "maxLength",
  "minItems",
  "maxItems",
  "minProperties",
  "maxProperties",
  "required",
  "properties",
  "additionalProperties",
  "items",
  "x-kubernetes-int-or-string",
  "x-kubernetes-preserve-unknown-fields",
  "x-kubernetes-list-type",
  "x-kubernetes-list-map-keys",
  "x-kubernetes-validations",
]);

/** Converts one schema; throws an Error that names the path of the first field that cannot be. */
export function crdSchema(schema: z.ZodType, path: string): CrdSchema {
  const node: Node = { ...z.toJSONSchema(schema, { target: "openapi-3.0", io: "input" }) };
  delete node["$schema"];
  return repair(node, path);
}

function repair(source: Node, path: string): CrdSchema {
  const node = { ...source };
  for (const key of ["anyOf", "oneOf", "allOf"]) {
    if (key in node) {
      refuse(path, `${key} repeats types; use optional fields plus a validation rule`);
    }
  }
  dropAdditionalProperties(node);
  if (node["type"] === "integer") boundInteger(node);
  for (const key of Object.keys(node)) {
    if (!ACCEPTED_KEYS.has(key)) {
      refuse(path, `"${key}" is not part of a structural schema`);
    }
  }
  requireType(node, path);
  requireDescription(node, path);
  requireBound(node, path);
  repairChildren(node, path);
  requireListKeys(node, path);
  return node;
}

/** zod closes every object, and says of an open one that anything may be in it. */
function dropAdditionalProperties(node: Node): void {
  const additional = node["additionalProperties"];
  if (additional === false) delete node["additionalProperties"];
  if (isNode(additional) && Object.keys(additional).length === 0) {
    delete node["additionalProperties"];
    if (isNode(node["properties"]) && Object.keys(node["properties"]).length === 0) {
      delete node["properties"];
    }
    node["x-kubernetes-preserve-unknown-fields"] = true;
  }
}

/** Drops zod's bounds of the safe integers and says how wide the number is. */
function boundInteger(node: Node): void {
  if (node["maximum"] === Number.MAX_SAFE_INTEGER) delete node["maximum"];
  if (node["minimum"] === Number.MIN_SAFE_INTEGER) delete node["minimum"];
  const maximum = node["maximum"];
  node["format"] = typeof maximum === "number" && maximum < 2 ** 31 ? "int32" : "int64";
}

function requireType(node: Node, path: string): void {
  const free =
    node["x-kubernetes-int-or-string"] === true ||
    node["x-kubernetes-preserve-unknown-fields"] === true;
  if (typeof node["type"] !== "string" && !free) {
    refuse(path, "has no type; the API server needs one unless the field keeps unknown fields");
  }
}

function requireDescription(node: Node, path: string): void {
  if (typeof node["description"] !== "string" || node["description"] === "") {
    refuse(path, "has no description");
  }
}

/** Without bounds the cost of a CEL rule cannot be estimated, and the API server refuses the CRD. */
function requireBound(node: Node, path: string): void {
  const bound =
    node["type"] === "string" && !("enum" in node)
      ? "maxLength"
      : node["type"] === "array"
        ? "maxItems"
        : isNode(node["additionalProperties"])
          ? "maxProperties"
          : undefined;
  if (bound !== undefined && typeof node[bound] !== "number") refuse(path, `has no ${bound}`);
}

function repairChildren(node: Node, path: string): void {
  const properties = node["properties"];
  if (isNode(properties)) {
    node["properties"] = Object.fromEntries(
      Object.entries(properties).map(([name, child]) => [
        name,
        repair(asNode(child, `${path}.${name}`), `${path}.${name}`),
      ]),
    );
  }
  if ("items" in node) node["items"] = repair(asNode(node["items"], `${path}[]`), `${path}[]`);
  const additional = node["additionalProperties"];
  if (isNode(additional)) {
    // The values of a map are described by the map.
    node["additionalProperties"] = repair({ description: "A value.", ...additional }, `${path}{}`);
  }
}

function requireListKeys(node: Node, path: string): void {
  if (node["x-kubernetes-list-type"] !== "map") return;
  const keys = node["x-kubernetes-list-map-keys"];
  const items = isNode(node["items"]) ? node["items"] : {};
  const required = Array.isArray(items["required"]) ? items["required"] : [];
  if (!Array.isArray(keys) || !keys.every((key) => required.includes(key))) {
    refuse(path, "the keys of a list of type map must be required fields of its items");
  }
}

function asNode(value: unknown, path: string): Node {
  if (!isNode(value)) return refuse(path, "is not a schema");
  return value;
}

function isNode(value: unknown): value is Node {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function refuse(path: string, problem: string): never {
  throw new Error(`${path}: ${problem}`);
}
