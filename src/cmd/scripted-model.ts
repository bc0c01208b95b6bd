import { readdirSync, readFileSync, statSync } from "node:fs";
import { basename, join } from "node:path";
import { aborted } from "../runtime/abort.ts";
import { systemClock } from "../runtime/clock.ts";
import { loadConfig } from "../runtime/config.ts";
import { AppError } from "../runtime/errors.ts";
import { createLogger } from "../runtime/logger.ts";
import { createRegistry } from "../runtime/metrics.ts";
import { runProcess } from "../runtime/process.ts";
import { VERSION } from "../runtime/version.ts";
import { scriptedModelConfig } from "../scripted-model/config.ts";
import { parseScripts } from "../scripted-model/script.ts";
import { createScriptedModel } from "../scripted-model/server.ts";

/** `drover scripted-model`: serves a script until the signal aborts. */
export async function scriptedModelMain(
  env: Readonly<Record<string, string | undefined>>,
  signal: AbortSignal,
): Promise<number> {
  const config = loadConfig(scriptedModelConfig, env);
  const logger = createLogger({ level: config.logLevel, process: "scripted-model" });
  const script = parseScripts(config.scripts.split(":").flatMap(readScripts));
  const server = createScriptedModel({
    script,
    clock: systemClock,
    logger,
    registry: createRegistry("scripted-model", VERSION),
    ...(config.apiKey === undefined ? {} : { apiKey: config.apiKey }),
  });
  const address = await server.listen({ host: config.host, port: config.port });
  logger.info({ address, scenarios: [...script.keys()] }, "scripted model listening");
  await aborted(signal);
  await server.close();
  return 0;
}

function readScripts(path: string): { name: string; text: string }[] {
  try {
    const files = statSync(path).isDirectory()
      ? readdirSync(path)
          .filter((name) => /\.ya?ml$/.test(name))
          .map((name) => join(path, name))
      : [path];
    return files.map((file) => ({ name: basename(file), text: readFileSync(file, "utf8") }));
  } catch (cause) {
    throw new AppError("CONFIG_INVALID", `DROVER_SCRIPTED_MODEL_SCRIPTS: cannot read "${path}"`, {
      cause,
    });
  }
}

if (import.meta.main) {
  await runProcess((signal) => scriptedModelMain(process.env, signal));
}
