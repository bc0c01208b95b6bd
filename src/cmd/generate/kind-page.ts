import { stringify } from "yaml";
import {
  CONDITIONS,
  conditionTypesOf,
  EVENT_REASONS,
  KIND_CONDITIONS,
  LOSS_REASONS,
  REASONS,
} from "../../api/conditions.ts";
import { buildObjectSchema } from "../../api/crd.ts";
import type { CrdSchema } from "../../api/crd-schema.ts";
import type { Kind } from "../../api/kinds.ts";
import { API_VERSION } from "../../api/names.ts";
import { KIND_EXAMPLES } from "./kind-examples.ts";
import { GENERATED_NOTE, page, table } from "./markdown.ts";

interface Field {
  path: string;
  schema: CrdSchema;
  required: boolean;
}

/** `agent-session.md` for AgentSession. */
export function kindPageName(kind: string): string {
  return `${kind.replaceAll(/(?<=[a-z])(?=[A-Z])/g, "-").toLowerCase()}.md`;
}

export function renderKindPage(kind: Kind): string {
  const schema = buildObjectSchema(kind);
  const spec = schema.properties?.["spec"] ?? {};
  const status = schema.properties?.["status"] ?? {};
  const specFields = fieldsOf(spec, "", kind.kind === "AgentSession" ? ["agent"] : []);
  const names = `\`${API_VERSION}\`, namespaced. Short name \`${kind.shortName}\`; \`kubectl get drover\` lists it with the other kinds.`;
  const longest = kind.maxNameLength ?? 253;
  return page(
    GENERATED_NOTE,
    `# ${kind.kind}`,
    kind.description,
    `${names} \`metadata.name\` may have up to ${longest} characters.`,
    "## Example",
    `\`\`\`yaml\n${stringify(KIND_EXAMPLES[kind.kind])}\`\`\``,
    "## Spec",
    fieldTable(specFields),
    "### Rules",
    ruleTable([{ path: "", schema: spec, required: true }, ...specFields]),
    "## Status",
    fieldTable(fieldsOf(status, "", [])),
    conditionSection(kind),
    eventSection(kind),
    lossSection(kind),
    "## Columns of `kubectl get`",
    table(
      ["Column", "From", "Shown"],
      kind.columns.map(({ name, jsonPath, priority }) => [
        name,
        `\`${jsonPath}\``,
        priority === undefined ? "always" : "with `-o wide`",
      ]),
    ),
    selectableSection(kind),
  );
}

/** All fields below a schema, depth first; what is below a path in `closed` is described elsewhere. */
function fieldsOf(schema: CrdSchema, prefix: string, closed: readonly string[]): Field[] {
  const fields: Field[] = [];
  for (const [name, child] of Object.entries(schema.properties ?? {})) {
    const path = prefix === "" ? name : `${prefix}.${name}`;
    fields.push({ path, schema: child, required: schema.required?.includes(name) ?? false });
    if (!closed.includes(path)) {
      fields.push(
        ...fieldsOf(child, path, closed),
        ...fieldsOf(child.items ?? {}, `${path}[]`, closed),
      );
    }
  }
  return fields;
}

function fieldTable(fields: readonly Field[]): string {
  return table(
    ["Field", "Type", "Default", "Limits", "Description"],
    fields.map(({ path, schema, required }) => [
      `\`${path}\``,
      typeOf(schema),
      defaultOf(schema, required),
      limitsOf(schema),
      describe(path, schema),
    ]),
  );
}

function describe(path: string, schema: CrdSchema): string {
  const isInlineAgent = path === "agent" && schema.type === "object";
  const text = schema.description ?? "";
  return isInlineAgent ? `${text} The fields are those of an [Agent's spec](agent.md#spec).` : text;
}

function typeOf(schema: CrdSchema): string {
  if (schema.type === "array") return `list of ${schema.items?.type ?? "any"}`;
  if (schema.additionalProperties) return `map of ${schema.additionalProperties.type ?? "any"}`;
  return schema.format === "date-time" ? "time" : (schema.type ?? "any");
}

function defaultOf(schema: CrdSchema, required: boolean): string {
  if (schema.default !== undefined) return `\`${JSON.stringify(schema.default)}\``;
  return required ? "**required**" : "–";
}

function limitsOf(schema: CrdSchema): string {
  if (schema.enum) return schema.enum.map((value) => `\`${value}\``).join(", ");
  if (schema.format === "date-time") return "RFC 3339";
  const range = (low: number | undefined, high: number | undefined, unit: string) => {
    if (low === undefined && high === undefined) return [];
    if (high === undefined) return [`at least ${low}${unit}`];
    return [low === undefined ? `up to ${high}${unit}` : `${low} to ${high}${unit}`];
  };
  return [
    ...range(schema.minimum, schema.maximum, ""),
    ...range(schema.minLength, schema.maxLength, " characters"),
    ...range(schema.minItems, schema.maxItems, " items"),
    ...range(schema.minProperties, schema.maxProperties, " entries"),
  ].join("; ");
}

/** Rules of a field and of the items of its list, in the words the API server answers with. */
function ruleTable(fields: readonly Field[]): string {
  const rows = fields.flatMap(({ path, schema }) =>
    (schema["x-kubernetes-validations"] ?? []).map(({ message }) => [
      path === "" ? "`spec`" : `\`spec.${path}\``,
      message,
    ]),
  );
  const items = fields.flatMap(({ path, schema }) =>
    (schema.items?.["x-kubernetes-validations"] ?? []).map(({ message }) => [
      `\`spec.${path}[]\``,
      message,
    ]),
  );
  return table(["Of", "Rule"], [...rows, ...items]);
}

function conditionSection(kind: Kind): string {
  const ofKind = KIND_CONDITIONS[kind.kind];
  const types = conditionTypesOf(kind.kind);
  const reasons = [...new Set(types.flatMap((type) => ofKind[type] ?? []))].toSorted();
  return page(
    "## Conditions",
    table(
      ["Type", "Meaning", "Reasons"],
      types.map((type) => [
        `\`${type}\``,
        CONDITIONS[type],
        (ofKind[type] ?? []).map((reason) => `\`${reason}\``).join(", "),
      ]),
    ),
    table(
      ["Reason", "Meaning"],
      reasons.map((reason) => [`\`${reason}\``, REASONS[reason]]),
    ),
  ).trimEnd();
}

function eventSection(kind: Kind): string | undefined {
  if (kind.kind !== "AgentSession") return undefined;
  return page(
    "## Events",
    "Events expire after about an hour: they are a hint, the session's log is the history. Besides these, the reasons of conditions appear as Events when a condition turns bad.",
    table(
      ["Reason", "Meaning"],
      Object.entries(EVENT_REASONS).map(([reason, meaning]) => [`\`${reason}\``, meaning]),
    ),
  ).trimEnd();
}

function lossSection(kind: Kind): string | undefined {
  if (kind.kind !== "SandboxTemplate") return undefined;
  return page(
    "## Why a sandbox is lost",
    "These reasons stand in the session's log as `sandbox.lost`, in the Event `SandboxLost`, and in the tool result the model reads. The session goes on: its next tool call gets a new sandbox.",
    table(
      ["Reason", "Meaning"],
      LOSS_REASONS.map((reason) => [`\`${reason}\``, REASONS[reason]]),
    ),
  ).trimEnd();
}

function selectableSection(kind: Kind): string | undefined {
  if (kind.selectableFields === undefined) return undefined;
  const fields = kind.selectableFields.map((path) => `\`${path.slice(1)}\``).join(", ");
  return `Field selectors (\`kubectl get ${kind.shortName} --field-selector …\`): ${fields}.`;
}
