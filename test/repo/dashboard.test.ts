import { readFileSync } from "node:fs";
import { describe, expect, it } from "@jest/globals";
import { parser } from "@prometheus-io/lezer-promql";
import { METRIC_PROCESSES, metricsOfProcess } from "../../src/cmd/generate/process-metrics.ts";

/**
 * A query that names what no process exports shows an empty panel and says nothing. So every query is
 * parsed, and each metric and label it names must be one that the processes register.
 */

type SyntaxNode = ReturnType<typeof parser.parse>["topNode"];

interface Metric {
  type: string;
  labels: readonly string[];
}

/** Put on every series by a scrape, whatever the process. */
const SCRAPE_LABELS = ["instance", "job", "namespace", "pod"];

function metricsOf(process: string): Map<string, Metric> {
  return new Map(
    metricsOfProcess(process).flatMap(({ name, type, labels }): [string, Metric][] => {
      if (type === "histogram") {
        return [
          [`${name}_bucket`, { type, labels: [...labels, "le"] }],
          [`${name}_sum`, { type, labels }],
          [`${name}_count`, { type, labels }],
        ];
      }
      return type === "summary" ? [] : [[name, { type, labels }]];
    }),
  );
}

const exported = new Map(METRIC_PROCESSES.flatMap((process) => [...metricsOf(process)]));

interface Panel {
  id: number;
  type: string;
  title: string;
  description?: string;
  datasource?: { uid: string };
  gridPos: { x: number; y: number; w: number; h: number };
  fieldConfig?: { defaults: { unit?: string } };
  targets?: { refId: string; expr: string; legendFormat: string }[];
}

const dashboard = JSON.parse(readFileSync("charts/drover/files/dashboard.json", "utf8")) as {
  uid: string;
  editable: boolean;
  templating: { list: { name: string; type: string }[] };
  panels: Panel[];
};

function nodesOf(expression: string): { name: string; text: string; node: SyntaxNode }[] {
  const found: { name: string; text: string; node: SyntaxNode }[] = [];
  parser.parse(expression).iterate({
    enter: ({ name, from, to, node }) => {
      found.push({ name, text: expression.slice(from, to), node });
    },
  });
  return found;
}

function functionAround(node: SyntaxNode): string {
  let parent = node.parent;
  while (parent !== null && parent.name !== "FunctionCall") parent = parent.parent;
  return parent?.getChild("FunctionIdentifier")?.firstChild?.name ?? "";
}

/** What is wrong with a query; empty when nothing is. */
function problemsOf(query: string): string[] {
  const expression = query.replaceAll("$__rate_interval", "5m");
  const nodes = nodesOf(expression);
  const problems = nodes
    .filter(({ name }) => name === "⚠")
    .map(({ node }) => `does not parse at "${expression.slice(node.from, node.from + 20)}"`);
  const known: string[] = [...SCRAPE_LABELS];
  const selectors = nodes.filter(({ name }) => name === "VectorSelector");
  for (const { node } of selectors) {
    const identifier = node.getChild("Identifier");
    const name = identifier === null ? "" : expression.slice(identifier.from, identifier.to);
    const metric = exported.get(name);
    if (metric === undefined) {
      problems.push(`no process exports "${name}"`);
      continue;
    }
    known.push(...metric.labels);
    const wrapped = functionAround(node) === "Rate";
    if (wrapped !== (metric.type !== "gauge")) {
      problems.push(`rate() is for what only grows: "${name}" is a ${metric.type}`);
    }
  }
  const labels = nodes.filter(({ name }) => name === "LabelName").map(({ text }) => text);
  const unknown = labels.filter((label) => !known.includes(label));
  problems.push(...unknown.map((label) => `no metric of the query has label "${label}"`));
  if (query.includes("rate(") && !query.includes("[$__rate_interval]")) {
    problems.push("rate() is not over $__rate_interval");
  }
  return problems;
}

const panels = dashboard.panels.filter(({ type }) => type !== "row");
const queries = panels.flatMap(({ title, targets = [] }) =>
  targets.map((target) => ({ title, ...target })),
);

describe("the dashboard", () => {
  it.each(queries)("$title $refId asks for what is exported: $expr", ({ expr }) => {
    expect(problemsOf(expr)).toEqual([]);
  });

  it.each(queries)("$title $refId has a legend of labels that the query keeps", (query) => {
    const legend = [...query.legendFormat.matchAll(/\{\{(\w+)\}\}/g)].map((match) => match[1]);
    const kept = nodesOf(query.expr.replaceAll("$__rate_interval", "5m"))
      .filter(({ name, node }) => name === "LabelName" && node.parent?.name === "GroupingLabels")
      .map(({ text }) => text);

    expect(kept).toEqual(expect.arrayContaining(legend));
  });

  it.each(panels)("$title says what it shows, in a unit, from the chosen data source", (panel) => {
    expect(panel.description).toMatch(/^[0-9A-Z].*\.$/s);
    expect(panel.fieldConfig?.defaults.unit).toBeDefined();
    expect(panel.datasource?.uid).toBe("${datasource}");
    expect(panel.targets?.length).toBeGreaterThan(0);
  });

  it("no two panels share an id or a place", () => {
    const ids = dashboard.panels.map(({ id }) => id);
    const places = dashboard.panels.map(({ gridPos }) => `${gridPos.x}/${gridPos.y}`);

    expect(new Set(ids).size).toBe(ids.length);
    expect(new Set(places).size).toBe(places.length);
  });

  it("is not edited in place, and asks which data source to use", () => {
    expect(dashboard.editable).toBe(false);
    expect(dashboard.templating.list).toEqual([
      expect.objectContaining({ name: "datasource", type: "datasource" }),
    ]);
  });
});

describe("a name means one thing", () => {
  it("no two processes export a metric of ours under it", () => {
    const shared = ["drover_build_info"];
    const separate = METRIC_PROCESSES.filter((process) => process !== "edge");
    const names = separate.flatMap((process) => [...metricsOf(process).keys()]);
    const twice = names.filter((name, at) => names.indexOf(name) !== at);

    expect(twice.filter((name) => name.startsWith("drover_") && !shared.includes(name))).toEqual(
      [],
    );
  });

  it("the edge is the proxy in another place: what both export is the same", () => {
    const proxy = metricsOf("proxy");
    const both = [...metricsOf("edge")].filter(([name]) => proxy.has(name));

    expect(both.length).toBeGreaterThan(5);
    for (const [name, metric] of both) expect(metric).toEqual(proxy.get(name));
  });
});

describe("the check itself", () => {
  it.each([
    {
      query: "sum(drover_sessions_made_total)",
      says: 'no process exports "drover_sessions_made_total"',
    },
    { query: "sum by (pool) (drover_sessions)", says: 'no metric of the query has label "pool"' },
    { query: 'drover_sessions{stat="Idle"}', says: 'no metric of the query has label "stat"' },
    { query: "sum(drover_sessions_created_total)", says: "rate() is for what only grows" },
    { query: "rate(drover_sessions[$__rate_interval])", says: "rate() is for what only grows" },
    { query: "rate(drover_log_appends_total[5m])", says: "rate() is not over $__rate_interval" },
    { query: "sum(rate(drover_log_appends_total[$__rate_interval])", says: "does not parse" },
    { query: "sum by (le) (drover_turn_duration_seconds)", says: "no process exports" },
  ])("$query: $says", ({ query, says }) => {
    expect(problemsOf(query).join("; ")).toContain(says);
  });
});
