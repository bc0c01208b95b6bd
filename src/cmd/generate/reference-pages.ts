import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { z } from "zod";
import { configMeta } from "../../runtime/config.ts";
import { ERROR_CODES } from "../../runtime/errors.ts";
import { GENERATED_NOTE, page, table } from "./markdown.ts";
import { METRIC_PROCESSES, type MetricFacts, metricsOfProcess } from "./process-metrics.ts";

export function renderErrorsPage(): string {
  return page(
    GENERATED_NOTE,
    "# Error codes",
    "Every error that leaves a process of Drover carries one of these codes. The status is the one an HTTP server of ours answers with.",
    table(
      ["Code", "HTTP status", "Meaning"],
      Object.entries(ERROR_CODES).map(([code, { http, meaning }]) => [
        `\`${code}\``,
        String(http),
        meaning,
      ]),
    ),
  );
}

/** Processes that read their configuration from the environment, and the file with its schema. */
const PROCESSES = [
  { name: "drover operator", file: "src/operator/config.ts" },
  { name: "drover harness", file: "src/harness/config.ts" },
  { name: "drover proxy", file: "src/proxy/config.ts" },
  { name: "drover edge", file: "src/proxy/edge/config.ts" },
  { name: "drover sandbox", file: "src/sandbox/config.ts" },
  { name: "The runner of a sandbox", file: "src/sandbox/runner-config.ts" },
  { name: "drover scripted-model", file: "src/scripted-model/config.ts" },
  { name: "drover cleanup", file: "src/operator/cleanup-config.ts" },
] as const;

export async function renderConfigurationPage(root: string): Promise<string> {
  const sections: string[] = [];
  for (const { name, file } of PROCESSES) {
    const exports: unknown = await import(pathToFileURL(join(root, file)).href);
    sections.push(`## ${name}`, settingsTable(configSchemaOf(exports, file)));
  }
  return page(
    GENERATED_NOTE,
    "# Configuration",
    "Each process reads its settings from environment variables. The value of `NAME` may also stand in a file named by `NAME_FILE`. A process that is started with settings it cannot use lists all of them and exits with code 2.",
    ...sections,
  );
}

/** The first exported zod object; `configMeta` says which of its fields lack their variable. */
function configSchemaOf(exports: unknown, file: string): z.ZodObject {
  const values: unknown[] =
    typeof exports === "object" && exports !== null ? Object.values(exports) : [];
  const schema = values.find((value) => value instanceof z.ZodObject);
  if (schema === undefined) throw new Error(`${file} exports no configuration schema`);
  return schema;
}

function settingsTable(schema: z.ZodObject): string {
  const rows = Object.entries(schema.shape).map(([name, field]) => {
    const { env, description, secret } = configMeta(name, field);
    return [
      `\`${env}\``,
      defaultOf(field),
      secret === true ? `Secret. ${description}` : description,
    ];
  });
  return table(["Variable", "Default", "Meaning"], rows);
}

function defaultOf(field: z.ZodType): string {
  const absent = field.safeParse(undefined);
  if (!absent.success) return "**required**";
  if (absent.data === undefined) return "–";
  return `\`${typeof absent.data === "string" ? absent.data : JSON.stringify(absent.data)}\``;
}

/** Node's and the client library's own metrics have pages of their own elsewhere. */
const LIBRARY_METRICS = /^(process|nodejs)_/;

export function renderMetricsPage(): string {
  const sections = METRIC_PROCESSES.flatMap((process) => [
    `## drover ${process}`,
    metricsTable(metricsOfProcess(process).filter(({ name }) => !LIBRARY_METRICS.test(name))),
  ]);
  return page(
    GENERATED_NOTE,
    "# Metrics",
    "Each process serves these on `/metrics` of its health port, beside Node's own `process_*` and `nodejs_*`. Labels come from closed sets; none is a session, user or event id. The names under `controller_runtime_`, `workqueue_`, `leader_election_` and `rest_client_` are controller-runtime's, so that its dashboards work.",
    ...sections,
  );
}

function metricsTable(metrics: readonly MetricFacts[]): string {
  const rows = metrics.map(({ name, type, labels, help }) => [
    `\`${name}\``,
    type,
    labels.map((label) => `\`${label}\``).join(", ") || "–",
    help,
  ]);
  return table(["Metric", "Type", "Labels", "Meaning"], rows);
}
