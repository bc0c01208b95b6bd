/**
 * Turns each defence off in turn, in a copy of the source tree, and demands that the test of its case
 * then fails by an assertion. Prints which defence is caught by which test.
 *
 *   npm run security:sabotage                 all
 *   npm run security:sabotage -- --only T02   the sabotages of one case
 *   npm run security:sabotage -- --page       only writes docs/security/attack-suite.md
 *
 * Each test file is first run as it is: one that fails anyhow proves nothing. Ends with 1 when a
 * defence can be turned off without a test that fails.
 */
import { spawnSync } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { attackSuitePage } from "./cases.ts";
import { loadSabotages, type Sabotage } from "./sabotage.ts";
import { WorkingCopy } from "./sabotage-copy.ts";
import { type Outcome, reportLines, verdictOf } from "./sabotage-verdict.ts";

/** Two cores are what CI has; a case may start a dozen processes. */
const WORKERS = 2;

async function main(only: string | undefined): Promise<number> {
  const all = await loadSabotages();
  const chosen = only === undefined ? all : all.filter((sabotage) => sabotage.case === only);
  if (chosen.length === 0) throw new Error(`there is no sabotage of ${only ?? "any case"}`);
  prepare(chosen);
  const scratch = await mkdtemp(join(tmpdir(), "drover-sabotage-"));
  try {
    const files = Map.groupBy(chosen, ({ test }) => test);
    const outcomes = await runAll([...files.values()], scratch);
    outcomes.sort((a, b) => chosen.indexOf(a.sabotage) - chosen.indexOf(b.sabotage));
    console.log(reportLines(outcomes).join("\n"));
    return outcomes.every(({ verdict }) => verdict.caught) ? 0 : 1;
  } finally {
    await rm(scratch, { recursive: true, force: true });
  }
}

/** Cases with a real API server find its programs in the cache. */
function prepare(chosen: readonly Sabotage[]): void {
  if (!chosen.some(({ test }) => test.startsWith("test/security/api/"))) return;
  const build = spawnSync("bash", ["test/cluster/build.sh", "api", "helm"], { stdio: "inherit" });
  if (build.status !== 0) throw new Error("programs for the cases with an API server are missing");
}

async function runAll(groups: readonly Sabotage[][], scratch: string): Promise<Outcome[]> {
  const outcomes: Outcome[] = [];
  const waiting = [...groups];
  const worker = async (number: number) => {
    const copy = await WorkingCopy.create(join(scratch, `copy-${number}`));
    for (let group = waiting.shift(); group !== undefined; group = waiting.shift()) {
      outcomes.push(...(await runFile(copy, group)));
    }
  };
  await Promise.all(Array.from({ length: WORKERS }, async (_, number) => await worker(number)));
  return outcomes;
}

/** All sabotages of one test file, after a run of it as it is. */
async function runFile(copy: WorkingCopy, group: readonly Sabotage[]): Promise<Outcome[]> {
  const outcomes: Outcome[] = [];
  const test = group[0]?.test ?? "";
  const intact = await copy.test(test);
  const untouched = intact.result?.success === true && intact.result.numPassedTests > 0;
  if (!untouched) console.error(`${test} as it is: failed\n${intact.output.slice(-4000)}`);
  for (const sabotage of group) {
    if (!untouched) {
      const why = "its test file fails, or runs no test, without any sabotage";
      outcomes.push({ sabotage, seconds: 0, verdict: { caught: false, why } });
      continue;
    }
    const run = await copy.with(sabotage, async () => await copy.test(test, sabotage.name));
    const verdict = verdictOf(run.result);
    outcomes.push({ sabotage, seconds: run.seconds, verdict });
    const word = verdict.caught ? "caught" : "NOT CAUGHT";
    console.error(`${sabotage.case} ${sabotage.defence}: ${word} (${run.seconds.toFixed(1)} s)`);
    if (!verdict.caught) console.error(run.output.slice(-4000));
  }
  return outcomes;
}

const { values } = parseArgs({ options: { only: { type: "string" }, page: { type: "boolean" } } });
if (values.page === true) {
  await writeFile("docs/security/attack-suite.md", attackSuitePage(await loadSabotages()));
} else {
  process.exitCode = await main(values.only);
}
