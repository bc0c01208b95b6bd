import { accessSync, constants, readdirSync, readFileSync } from "node:fs";
import { homedir } from "node:os";
import { basename, dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import type { RunArguments } from "../cli/program.ts";
import { runLocal } from "../local/run.ts";
import { systemClock } from "../runtime/clock.ts";
import { AppError } from "../runtime/errors.ts";
import { createLogger } from "../runtime/logger.ts";
import { systemRng } from "../runtime/rng.ts";
import { localCredentials } from "./credentials.ts";

const here = fileURLToPath(import.meta.url);
const installation = resolve(dirname(here), "../..");
const exampleScripts = join(installation, "deploy", "examples", "scripts");

/** `drover run`: local mode, until the sessions are done or the signal aborts. */
export async function runMain(
  options: RunArguments,
  env: Readonly<Record<string, string | undefined>>,
  signal: AbortSignal,
): Promise<number> {
  const dataHome = env["XDG_DATA_HOME"] ?? join(homedir(), ".local", "share");
  for (const file of [options.modelKeyFile, options.credentials]) {
    if (file !== undefined) requireReadable(file);
  }
  const level = options.verbose ? "info" : "error";
  return await runLocal(
    {
      files: options.file,
      dataDirectory: resolve(options.dataDir ?? join(dataHome, "drover")),
      model: { baseUrl: options.modelUrl, apiKeyFile: options.modelKeyFile },
      scripts: (options.script.length > 0 ? options.script : defaultScripts()).map(readScript),
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
      print: (line) => process.stdout.write(`${line}\n`),
      clock: systemClock,
      rng: systemRng,
      logger: createLogger({ level, process: "local", destination: process.stderr }),
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

function defaultScripts(): string[] {
  return readdirSync(exampleScripts).map((name) => join(exampleScripts, name));
}

function readScript(file: string): { name: string; text: string } {
  try {
    return { name: basename(file), text: readFileSync(file, "utf8") };
  } catch (cause) {
    throw new AppError("INPUT_INVALID", `script "${file}" cannot be read`, { cause });
  }
}
