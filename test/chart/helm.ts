/** Renders the chart with the test bed's Helm and reads what comes out. */
import { execFile } from "node:child_process";
import { readdirSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import type { V1Container, V1PodSpec } from "@kubernetes/client-node";
import { parseAllDocuments } from "yaml";

export const CHART = "charts/drover";
export const RELEASE = "drover";
export const NAMESPACE = "drover-system";

export interface Rendered {
  apiVersion: string;
  kind: string;
  metadata: {
    name: string;
    namespace?: string;
    labels?: Record<string, string>;
    annotations?: Record<string, string>;
  };
  [field: string]: unknown;
}

export interface Ran {
  code: number;
  stdout: string;
  stderr: string;
}

/** Values of each case the chart is checked with. */
export const CASES: readonly { name: string; values: readonly string[] }[] = [
  ...readdirSync(join(CHART, "ci")).map((file) => ({
    name: `ci/${file}`,
    values: ["-f", join(CHART, "ci", file)],
  })),
  { name: "values-eval.yaml", values: ["-f", join(CHART, "values-eval.yaml")] },
  {
    name: "values-ha.yaml",
    values: ["-f", join(CHART, "values-ha.yaml"), "--set", "redis.url=redis://redis:6379"],
  },
  { name: "the defaults", values: ["--set", "redis.url=redis://redis:6379"] },
];

let program: Promise<string> | undefined;
/** Does not exist, so that no setting of the person who runs the tests counts. Helm writes nothing there. */
const home = join(tmpdir(), "drover-no-helm-settings");

async function findHelm(): Promise<string> {
  const run = promisify(execFile);
  const build = "test/cluster/build.sh";
  await run("bash", [build, "helm"], { maxBuffer: 1 << 26 });
  const { stdout } = await run("bash", [build, "--path", "helm"]);
  return stdout.trim();
}

/** Never throws because of Helm's exit code. */
export async function helm(
  args: readonly string[],
  env: Readonly<Record<string, string>> = {},
): Promise<Ran> {
  program ??= findHelm();
  const path = await program;
  return await new Promise((resolve) => {
    const options = {
      maxBuffer: 1 << 26,
      env: {
        ...process.env,
        KUBECONFIG: "/dev/null",
        HELM_CACHE_HOME: home,
        HELM_CONFIG_HOME: home,
        HELM_DATA_HOME: home,
        ...env,
      },
    };
    execFile(path, [...args], options, (error, stdout, stderr) => {
      const code = typeof error?.code === "number" ? error.code : error ? 1 : 0;
      resolve({ code, stdout, stderr });
    });
  });
}

/** The chart's manifests as text; throws with Helm's words when it refuses. */
export async function renderText(values: readonly string[]): Promise<string> {
  const result = await helm(["template", RELEASE, CHART, "-n", NAMESPACE, ...values]);
  if (result.code !== 0) throw new Error(result.stderr);
  return result.stdout;
}

export async function render(values: readonly string[]): Promise<Rendered[]> {
  return parseManifests(await renderText(values));
}

export function parseManifests(text: string): Rendered[] {
  return parseAllDocuments(text)
    .map((document) => document.toJS() as Rendered | null)
    .filter((object) => object !== null);
}

export function find(objects: readonly Rendered[], kind: string, name: string): Rendered {
  const found = objects.find((object) => object.kind === kind && object.metadata.name === name);
  if (found === undefined) throw new Error(`the chart renders no ${kind} ${name}`);
  return found;
}

export interface PodTemplate {
  /** Kind and name of the workload. */
  of: string;
  labels: Record<string, string>;
  spec: V1PodSpec;
}

export function podTemplates(objects: readonly Rendered[]): PodTemplate[] {
  return objects.flatMap((object) => {
    const template = (object["spec"] as { template?: unknown } | undefined)?.template as
      | { metadata: { labels: Record<string, string> }; spec: V1PodSpec }
      | undefined;
    if (template?.spec?.containers === undefined) return [];
    const of = `${object.kind} ${object.metadata.name}`;
    return [{ of, labels: template.metadata.labels, spec: template.spec }];
  });
}

export function containersOf({ spec }: PodTemplate): V1Container[] {
  return [...(spec.initContainers ?? []), ...spec.containers];
}
