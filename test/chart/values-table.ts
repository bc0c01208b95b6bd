/**
 * The table of values in the chart's README: a row per key of values.yaml, its text the comment above
 * the key, its type from values.schema.json.
 *
 *   npm exec -- node test/chart/values-table.ts     writes the table into the README
 */
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { isMap, isNode, isScalar, parseDocument, type YAMLMap } from "yaml";

const CHART = "charts/drover";
const START = "<!-- values: written by test/chart/values-table.ts from values.yaml -->";
const END = "<!-- end of values -->";

export interface Schema {
  $ref?: string;
  type?: string | string[];
  enum?: string[];
  properties?: Record<string, Schema>;
  additionalProperties?: boolean | Schema;
  definitions?: Record<string, Schema>;
}

export interface Value {
  path: string;
  text: string;
  fallback: unknown;
  schema: Schema | undefined;
}

export function readSchema(): Schema {
  return JSON.parse(readFileSync(join(CHART, "values.schema.json"), "utf8")) as Schema;
}

/** Follows a reference into the schema's definitions. */
export function resolve(root: Schema, schema: Schema | undefined): Schema | undefined {
  const name = schema?.$ref?.replace("#/definitions/", "");
  return name === undefined ? schema : root.definitions?.[name];
}

/** The keys a user sets, in the order of the file; a key with keys of ours below it is not one. */
export function readValues(): Value[] {
  const { contents } = parseDocument(readFileSync(join(CHART, "values.yaml"), "utf8"));
  const root = readSchema();
  return isMap(contents) ? valuesOf(contents, "", root, root) : [];
}

function valuesOf(map: YAMLMap, prefix: string, schema: Schema, root: Schema): Value[] {
  return map.items.flatMap(({ key, value }, index) => {
    const name = isScalar(key) ? String(key.value) : "";
    const path = `${prefix}${name}`;
    const entry = schema.properties?.[name];
    const own = resolve(root, entry);
    // A definition of its own, such as `resources`, is one value.
    if (isMap(value) && entry?.$ref === undefined && own?.properties !== undefined) {
      return valuesOf(value, `${path}.`, own, root);
    }
    // The parser hangs the comment above a map's first key on the map.
    const above = isScalar(key) ? key.commentBefore : undefined;
    const text = (above ?? (index === 0 ? map.commentBefore : undefined) ?? "").trim();
    const fallback: unknown = isNode(value) ? value.toJSON() : undefined;
    return [{ path, text, fallback, schema: own }];
  });
}

function typeOf({ schema }: Value): string {
  if (schema?.enum !== undefined) return "string";
  return [schema?.type ?? "any"].flat().join(" or ");
}

function table(values: readonly Value[]): string {
  const cell = (text: string) => text.replaceAll("|", "\\|");
  const rows = values.map(
    (value) =>
      `| \`${value.path}\` | ${typeOf(value)} | \`${cell(JSON.stringify(value.fallback))}\` | ${cell(value.text)} |`,
  );
  return ["| Value | Type | Default | Meaning |", "|---|---|---|---|", ...rows].join("\n");
}

/** The README with the table of now in it; throws when the place for it is missing. */
export function withTable(readme: string): string {
  const [before, rest] = split(readme, START);
  const [, after] = split(rest, END);
  return `${before}${START}\n\n${table(readValues())}\n\n${END}${after}`;
}

function split(text: string, mark: string): [string, string] {
  const at = text.indexOf(mark);
  if (at < 0) throw new Error(`the README of the chart lacks "${mark}"`);
  return [text.slice(0, at), text.slice(at + mark.length)];
}

if (process.argv[1] === import.meta.filename) {
  const path = join(CHART, "README.md");
  writeFileSync(path, withTable(readFileSync(path, "utf8")));
}
