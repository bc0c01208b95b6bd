import { z } from "zod";
import { secretField } from "../runtime/config.ts";

export const scriptedModelConfig = z.object({
  scripts: z.string().min(1).meta({
    env: "DROVER_SCRIPTED_MODEL_SCRIPTS",
    description: "Script files, or folders whose .yaml files are read, separated by colons.",
  }),
  host: z.string().min(1).default("0.0.0.0").meta({
    env: "DROVER_SCRIPTED_MODEL_HOST",
    description: "Address to listen on.",
  }),
  port: z.coerce.number().int().min(0).max(65_535).default(8080).meta({
    env: "DROVER_SCRIPTED_MODEL_PORT",
    description: "Port of the Messages API, its admin routes, health and metrics.",
  }),
  apiKey: secretField(
    "DROVER_SCRIPTED_MODEL_API_KEY",
    "Key that requests must present; any or none is accepted when absent.",
  )
    .optional()
    .meta({
      env: "DROVER_SCRIPTED_MODEL_API_KEY",
      description: "Key that requests must present; any or none is accepted when absent.",
      secret: true,
    }),
  logLevel: z.enum(["debug", "info", "warn", "error", "silent"]).default("info").meta({
    env: "DROVER_LOG_LEVEL",
    description: "Least severe level that is logged.",
  }),
});
