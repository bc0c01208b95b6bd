import { accessSync, constants, readdirSync, readFileSync } from "node:fs";
import { basename, dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import type { RunArguments } from "../cli/program.ts";
import { runLocal } from "../local/run.ts";
import { systemClock } from "../runtime/clock.ts";
import { AppError } from "../runtime/errors.ts";
import { createLogger } from "../runtime/logger.ts";
import { systemRng } from "../runtime/rng.ts";
import { visible, visibleLine } from "../runtime/visible.ts";
import { localCredentials } from "./credentials.ts";
import { dataHome } from "./user-folders.ts";

const here = fileURLToPath(import.meta.url);
const installation = resolve(dirname(here), "../..");
const exampleScripts = join(installation, "deploy", "examples", "scripts");

/** `drover run`: local mode, until the sessions are done or the signal aborts. */
export async function runMain(
  options: RunArguments,
  env: Readonly<Record<string, string | undefined>>,
  signal: AbortSignal,
): Promise<number> {
  requireHttp(options.modelUrl);
  for (const file of [options.modelKeyFile, options.credentials]) {
    if (file !== undefined) requireReadable(file);
  }
  const level = options.verbose ? "info" : "error";
  return await runLocal(
    {
      files: options.file,
      dataDirectory: resolve(options.dataDir ?? join(dataHome(env), "drover")),
      model: { baseUrl: options.modelUrl, apiKeyFile: options.modelKeyFile },
      scripts: scriptFiles(options).map(readScript),
      credentials: localCredentials(env, options.credentials),
      localServers: options.allowServer,
      // The daemon is the file beside this one, as source or compiled.
      sandboxCommand: [
        process.execPath,
        "--disable-sigusr1",
        here.replace(/run(\.[jt]s)$/, "sandbox$1"),
      ],
      nodeDirectory: dirname(process.execPath),
      installation,
      print: (line) => process.stdout.write(`${visibleLine(line)}\n`),
      clock: systemClock,
      rng: systemRng,
      logger: createLogger({
        level,
        process: "local",
        destination: { write: (line) => process.stderr.write(visible(line)) },
      }),
    },
    signal,
  );
}

/** Told before anything starts, not by the first request that needs it. */
function requireReadable(file: string): void {
  try {
    accessSync(file, constants.R_OK);
  } catch (cause) {
    throw new AppError("INPUT_INVALID", `"${file}" cannot be read`, { cause });
  }
}

/** Told before anything starts; a scheme that fetch does not know gives an error without a reason. */
function requireHttp(url: string | undefined): void {
  if (url === undefined) return;
  if (/^https?:$/.test(URL.canParse(url) ? new URL(url).protocol : "")) return;
  throw new AppError(
    "INPUT_INVALID",
    `--model-url "${url}" is not accepted; it begins with https:// or http://`,
  );
}

/** Scripts of the scripted model: the given ones, else the examples; none with another model. */
function scriptFiles({ script, modelUrl }: RunArguments): string[] {
  if (script.length > 0) return script;
  if (modelUrl !== undefined) return [];
  try {
    return readdirSync(exampleScripts).map((name) => join(exampleScripts, name));
  } catch (cause) {
    throw new AppError(
      "INPUT_INVALID",
      `the example scripts are not in "${exampleScripts}"; name a script for the scripted model with --script, or a model with --model-url`,
      { cause },
    );
  }
}

function readScript(file: string): { name: string; text: string } {
  try {
    return { name: basename(file), text: readFileSync(file, "utf8") };
  } catch (cause) {
    throw new AppError("INPUT_INVALID", `script "${file}" cannot be read`, { cause });
  }
}
