import { spawn } from "node:child_process";
import { once } from "node:events";
import { cp, mkdir, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { type Sabotage, sabotaged } from "./sabotage.ts";
import type { JestResult } from "./sabotage-verdict.ts";

const COPIED = [
  "src",
  "test",
  "charts",
  "Dockerfile",
  "Dockerfile.sandbox",
  "crds",
  "deploy",
  "docs",
  "package.json",
  "jest.config.ts",
  "tsconfig.json",
];
/** A test that hangs because a defence is off ends at Jest's own limit, long before this one. */
const LIMIT_MS = 300_000;

export interface TestRun {
  /** Undefined when Jest wrote no report. */
  result: JestResult | undefined;
  output: string;
  seconds: number;
}

/** A copy of the working tree in which source text may be broken. */
export class WorkingCopy {
  readonly #folder: string;

  static async create(folder: string): Promise<WorkingCopy> {
    await mkdir(folder);
    await Promise.all(
      COPIED.map(async (name) => await cp(name, join(folder, name), { recursive: true })),
    );
    await symlink(resolve("node_modules"), join(folder, "node_modules"));
    return new WorkingCopy(folder);
  }

  private constructor(folder: string) {
    this.#folder = folder;
  }

  /** Turns the defence off for as long as `work` takes. */
  async with<T>(sabotage: Sabotage, work: () => Promise<T>): Promise<T> {
    const path = join(this.#folder, sabotage.file);
    const text = await readFile(path, "utf8");
    await writeFile(path, sabotaged(text, sabotage));
    try {
      return await work();
    } finally {
      await writeFile(path, text);
    }
  }

  async test(file: string, name?: string): Promise<TestRun> {
    const report = join(this.#folder, "report.json");
    await rm(report, { force: true });
    const started = performance.now();
    const jest = spawn(process.execPath, [...jestArguments(file, report), ...named(name)], {
      cwd: this.#folder,
      stdio: ["ignore", "pipe", "pipe"],
      env: { ...process.env, NO_COLOR: "1", FORCE_COLOR: "0" },
      timeout: LIMIT_MS,
      killSignal: "SIGKILL",
    });
    let output = "";
    for (const stream of [jest.stdout, jest.stderr]) {
      stream.setEncoding("utf8").on("data", (text: string) => {
        output += text;
      });
    }
    await once(jest, "close");
    const text = await readFile(report, "utf8").catch(() => undefined);
    const result = text === undefined ? undefined : (JSON.parse(text) as JestResult);
    return { result, output, seconds: (performance.now() - started) / 1000 };
  }
}

function jestArguments(file: string, report: string): string[] {
  return [
    "--experimental-vm-modules",
    "--disable-warning=ExperimentalWarning",
    "node_modules/jest/bin/jest.js",
    "--selectProjects=security",
    "--selectProjects=security-api",
    "--runInBand",
    // What a broken process leaves open must not keep the next one waiting.
    "--forceExit",
    "--json",
    `--outputFile=${report}`,
    "--runTestsByPath",
    file,
  ];
}

function named(name: string | undefined): string[] {
  return name === undefined ? [] : [`--testNamePattern=${name}`];
}
