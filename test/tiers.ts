/**
 * Runs test tiers (Jest projects) one after the other and prints their sums. With
 * DROVER_RESULTS_DIR set, each tier's sums are kept there, and `tiers.ts --sums` prints the total of
 * all that ran as the closing line that CI reads.
 *
 *   npm run test:tiers -- unit repo integration security
 */
import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

interface Sums {
  passed: number;
  failed: number;
  skipped: number;
}

/** Tiers whose files share one cluster or many processes: one file at a time. */
const SERIAL = new Set(["api", "security-api", "e2e"]);

function runTier(tier: string, scratch: string): Sums {
  const report = join(scratch, `${tier}.json`);
  const args = [
    "--experimental-vm-modules",
    "--disable-warning=ExperimentalWarning",
    "node_modules/jest/bin/jest.js",
    "--selectProjects",
    tier,
    "--json",
    `--outputFile=${report}`,
    ...(SERIAL.has(tier) ? ["--runInBand"] : ["--maxWorkers=2"]),
  ];
  // Jest's own JSON goes to the file; its progress is on stderr.
  const run = spawnSync(process.execPath, args, { stdio: ["ignore", "ignore", "inherit"] });
  try {
    const result: unknown = JSON.parse(readFileSync(report, "utf8"));
    return sumsOf(result);
  } catch {
    console.error(`tier ${tier}: jest ended with ${run.status ?? run.signal} and no report`);
    return { passed: 0, failed: 1, skipped: 0 };
  }
}

/** A file that does not even load counts as one failure: Jest counts none of its tests. */
function sumsOf(result: unknown): Sums {
  const numbers = result as Record<string, number>;
  const broken = numbers["numRuntimeErrorTestSuites"] ?? 0;
  return {
    passed: numbers["numPassedTests"] ?? 0,
    failed: (numbers["numFailedTests"] ?? 0) + broken,
    skipped: (numbers["numPendingTests"] ?? 0) + (numbers["numTodoTests"] ?? 0),
  };
}

function add(a: Sums, b: Sums): Sums {
  return {
    passed: a.passed + b.passed,
    failed: a.failed + b.failed,
    skipped: a.skipped + b.skipped,
  };
}

function line(sums: Sums): string {
  const skipped = sums.skipped > 0 ? `, ${sums.skipped} skipped` : "";
  return `${sums.passed} passed, ${sums.failed} failed${skipped}`;
}

function kept(directory: string): Sums {
  return readdirSync(directory)
    .filter((name) => name.endsWith(".sums"))
    .map((name) => JSON.parse(readFileSync(join(directory, name), "utf8")) as Sums)
    .reduce(add, { passed: 0, failed: 0, skipped: 0 });
}

function main(args: string[]): number {
  const results = process.env["DROVER_RESULTS_DIR"];
  if (args[0] === "--sums") {
    const total = kept(results ?? ".");
    console.log(line(total));
    return total.failed > 0 || total.passed === 0 ? 1 : 0;
  }
  const scratch = mkdtempSync(join(tmpdir(), "drover-tiers-"));
  let total: Sums = { passed: 0, failed: 0, skipped: 0 };
  try {
    for (const tier of args) {
      const sums = runTier(tier, scratch);
      console.log(`tier ${tier}: ${line(sums)}`);
      if (results !== undefined) {
        mkdirSync(results, { recursive: true });
        writeFileSync(join(results, `${tier}.sums`), JSON.stringify(sums));
      }
      total = add(total, sums);
    }
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
  console.log(line(total));
  return total.failed > 0 || total.passed === 0 ? 1 : 0;
}

process.exitCode = main(process.argv.slice(2));
