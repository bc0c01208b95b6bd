import { type Document, LineCounter, parseAllDocuments, type Tags } from "yaml";
import { buildObjectSchema, findKind } from "../api/crd.ts";
import { KIND_NAMES } from "../api/kinds.ts";
import { API_VERSION } from "../api/names.ts";
import type { KubeObject } from "../kube/objects.ts";
import { AppError, describeError } from "../runtime/errors.ts";
import { applyDefaults, findProblems, findUnknownFields } from "./object-schema.ts";

/**
 * Manifests without an API server. What `kubectl apply` would refuse is refused here in the same
 * words, by the schemas and rules from which the CRDs are made, so that a file that works in local
 * mode works on a cluster. Rules about a change of an object have nothing to compare with here.
 */

/**
 * Reads the objects of a YAML file with one or more documents; empty documents are left out.
 * Throws INPUT_INVALID with file and line.
 */
export function parseManifests(text: string, file: string): KubeObject[] {
  const lineCounter = new LineCounter();
  const documents = [
    ...parseAllDocuments(text, { schema: "yaml-1.1", customTags: withoutTimes, lineCounter }),
  ];
  return documents.flatMap((document) => {
    const start = document.contents?.range?.[0] ?? document.range[0];
    const where = (offset: number) => `${file}:${lineCounter.linePos(offset).line}`;
    const error = document.errors[0];
    if (error !== undefined) {
      const reason = error.message.split(" at line ")[0] ?? "";
      throw new AppError("INPUT_INVALID", `${where(error.pos[0])}: not valid YAML: ${reason}`);
    }
    const value = toValue(document, where(start));
    return value === null ? [] : toObjects(value, where(start));
  });
}

/**
 * Checks an object of one of our kinds and returns a copy with the defaults of its schema, without
 * status. Throws INPUT_INVALID that lists every field with what is accepted there.
 */
export function validateManifest(object: KubeObject, file: string): KubeObject {
  const kind = object.apiVersion === API_VERSION ? findKind(object.kind) : undefined;
  if (kind === undefined) {
    throw new AppError(
      "INPUT_INVALID",
      `${file}: ${object.apiVersion} ${object.kind} "${object.metadata.name}" is of a kind that is not known here; accepted are ${KIND_NAMES.join(", ")} of ${API_VERSION}`,
    );
  }
  const schema = buildObjectSchema(kind);
  const copy = structuredClone(object);
  // As the API server does: a field that nobody knows is the whole answer, before any other check.
  let problems = findUnknownFields(copy, schema, "");
  if ("status" in copy) delete copy.status;
  if (problems.length === 0) {
    applyDefaults(copy, schema);
    if ("status" in copy) delete copy.status;
    problems = [...findNameProblems(copy.metadata.name), ...findProblems(copy, schema)];
  }
  if (problems.length === 0) return copy;
  throw new AppError(
    "INPUT_INVALID",
    `${file}: ${kind.kind} "${object.metadata.name}" is invalid:\n  ${problems.join("\n  ")}`,
  );
}

/** As kubectl reads YAML: 1.1 (`yes` is true), but `12:30` and `2001-01-01` stay text. */
function withoutTimes(tags: Tags): Tags {
  return tags.filter(
    (tag) =>
      typeof tag === "string" ||
      !(tag.tag === "tag:yaml.org,2002:timestamp" || ("format" in tag && tag.format === "TIME")),
  );
}

function toValue(document: Document, where: string): unknown {
  try {
    const value: unknown = document.toJS({ maxAliasCount: 100 });
    return value ?? null;
  } catch (error) {
    throw new AppError("INPUT_INVALID", `${where}: not valid YAML: ${describeError(error)}`);
  }
}

/** A List, as `kubectl get -o yaml` writes it, stands for its items. */
function toObjects(value: unknown, where: string): KubeObject[] {
  if (!isRecord(value) || !Array.isArray(value["items"])) return [toObject(value, where)];
  const { kind, items } = value;
  if (typeof kind !== "string" || !kind.endsWith("List")) return [toObject(value, where)];
  return items.flatMap((item: unknown, index) => toObjects(item, `${where}: items[${index}]`));
}

function toObject(value: unknown, where: string): KubeObject {
  if (!isRecord(value)) {
    throw new AppError("INPUT_INVALID", `${where}: must be a Kubernetes object, not a bare value`);
  }
  const { apiVersion, kind, metadata } = value;
  for (const [field, present] of [
    ["apiVersion", apiVersion],
    ["kind", kind],
    ["metadata.name", isRecord(metadata) ? metadata["name"] : undefined],
  ] as const) {
    if (typeof present !== "string" || present === "") {
      throw new AppError("INPUT_INVALID", `${where}: ${field}: Required value: must be text`);
    }
  }
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- checked just above
  return value as unknown as KubeObject;
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** A CRD does not state this; the API server has it for every object. */
function findNameProblems(name: string): string[] {
  const field = `metadata.name: Invalid value: "${name}"`;
  if (name.length > 253) return [`${field}: must be no more than 253 bytes`];
  const label = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
  if (new RegExp(`^${label}([.]${label})*$`).test(name)) return [];
  return [
    `${field}: a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character`,
  ];
}
