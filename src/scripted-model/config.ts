import { z } from "zod";
import { secretField } from "../runtime/config.ts";

export const scriptedModelConfig = z.object({
  scriptPath: z.string().min(1).meta({
    env: "DROVER_MODEL_SCRIPT",
    description: "Script file, or a folder whose .yaml files are read.",
  }),
  host: z.string().min(1).default("0.0.0.0").meta({
    env: "DROVER_HOST",
    description: "Address to listen on.",
  }),
  port: z.coerce.number().int().min(0).max(65_535).default(8080).meta({
    env: "DROVER_PORT",
    description: "Port of the Messages API, its admin routes, health and metrics.",
  }),
  apiKey: secretField(
    "DROVER_MODEL_API_KEY",
    "Key that requests must present; any or none is accepted when absent.",
  ).optional(),
  logLevel: z.enum(["debug", "info", "warn", "error"]).default("info").meta({
    env: "DROVER_LOG_LEVEL",
    description: "Least severe level that is logged.",
  }),
});
export type ScriptedModelConfig = z.output<typeof scriptedModelConfig>;
